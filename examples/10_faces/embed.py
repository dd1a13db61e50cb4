"""The embedding of an image by a deployed net, without Caffe: in OpenCV, and in onnxruntime.

    python embed.py DIR IMAGE

DIR is what `caffe-metric deploy --onnx` wrote. Prints the first numbers of each, and how far they
are apart. This is what a host has to do, and no more.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np


def prepared(image, given, folder):
    """The net's input, float32 [1, channels, height, width], as preprocess.json says."""
    size = given["resize"] or (None if given["crop"] else [given["width"], given["height"]])
    if size:
        image = cv2.resize(image, tuple(size), interpolation=cv2.INTER_LINEAR)
    array = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    array = array.astype(np.float32)
    if given["crop"]:
        top, left = ((side - given["crop"]) // 2 for side in array.shape[1:])
        array = array[:, top : top + given["crop"], left : left + given["crop"]]
    if given["mean_value"]:
        array -= np.array(given["mean_value"], np.float32)[:, None, None]
    return array[None] * np.float32(given["scale"])


def main():
    folder, image_path = Path(sys.argv[1]), sys.argv[2]
    given = json.loads((folder / "preprocess.json").read_text(encoding="utf-8"))
    flag = cv2.IMREAD_GRAYSCALE if given["channels"] == 1 else cv2.IMREAD_COLOR
    images = prepared(cv2.imread(image_path, flag), given, folder)

    net = cv2.dnn.readNetFromCaffe(
        str(folder / "deploy.prototxt"), str(folder / "deploy.caffemodel")
    )
    net.setInput(images)
    embeddings = {"OpenCV": net.forward(given["output"]).ravel()}
    try:
        import onnxruntime
    except ImportError:
        print("onnxruntime is not installed: OpenCV alone")
    else:
        session = onnxruntime.InferenceSession(str(folder / "deploy.onnx"))
        (output,) = session.run(None, {session.get_inputs()[0].name: images})
        embeddings["onnxruntime"] = output.ravel()

    first = embeddings["OpenCV"]
    for name, embedding in embeddings.items():
        numbers = " ".join(f"{number:8.5f}" for number in embedding[:5])
        length = np.linalg.norm(embedding)
        print(f"{name:<12} {len(embedding)} numbers, length {length:.5f}: {numbers} ...")
    apart = max(float(np.abs(other - first).max()) for other in embeddings.values())
    print(f"greatest difference between them {apart:.2g}")


if __name__ == "__main__":
    main()
