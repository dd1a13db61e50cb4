"""What Caffe, OpenCV's dnn and onnxruntime make of a deployed net."""

from __future__ import annotations

import numpy as np

TOLERANCE = 1e-4  # greatest difference, relative to the largest output


def by_caffe(folder, output, images) -> tuple[np.ndarray, str]:
    """The output for images [N, C, H, W], and Caffe's version."""
    import caffe

    net = caffe.Net(
        str(folder / "deploy.prototxt"), caffe.TEST, weights=str(folder / "deploy.caffemodel")
    )
    net.blobs[net.inputs[0]].reshape(*images.shape)
    net.blobs[net.inputs[0]].data[...] = images
    net.forward()
    return net.blobs[output].data.copy(), caffe.__version__


def by_opencv(folder, output, images) -> tuple[np.ndarray, str]:
    """The same; raises ModuleNotFoundError where OpenCV is missing, or reads no Caffe nets."""
    import cv2

    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        raise ModuleNotFoundError(f"OpenCV {cv2.__version__} reads no Caffe nets", name="cv2")
    files = (str(folder / "deploy.prototxt"), str(folder / "deploy.caffemodel"))
    net = cv2.dnn.readNetFromCaffe(*files)
    net.setInput(np.ascontiguousarray(images, np.float32))
    # By a name OpenCV means a layer, not a blob; the last layer makes the output.
    return net.forward(), cv2.__version__


def by_onnxruntime(folder, output, images, file="deploy.onnx") -> tuple[np.ndarray, str]:
    """The same of an ONNX file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(folder / file), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    (found,) = session.run([output], {name: np.ascontiguousarray(images, np.float32)})
    return found, onnxruntime.__version__


RUNTIMES = {"caffe": by_caffe, "opencv": by_opencv, "onnxruntime": by_onnxruntime}


def compare(expected, found) -> dict:
    """How far two outputs lie apart.

    relative_difference: the greatest difference, relative to the largest number expected. cosine:
    the least one of a row.
    """
    expected = np.asarray(expected, np.float64)
    found = np.asarray(found, np.float64)
    if expected.size != found.size:
        return {"relative_difference": None, "cosine": None, "equal": False}
    expected, found = (array.reshape(len(expected), -1) for array in (expected, found))
    largest = max(float(np.abs(expected).max()), 1e-30)
    difference = float(np.abs(expected - found).max()) / largest
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    cosines = np.einsum("nd,nd->n", expected, found) / np.where(norms > 0, norms, 1)
    return {
        "relative_difference": difference,
        "cosine": float(np.where(norms > 0, cosines, 1).min()),
        "equal": bool(difference <= TOLERANCE),
    }


def parity(folder, output, images, expected, wanted) -> dict:
    """{runtime: comparison and version} of the wanted runtimes; None for one not installed.

    A runtime that fails has its words under "error".
    """
    found = {}
    for name in wanted:
        try:
            values, version = RUNTIMES[name](folder, output, images)
        except ModuleNotFoundError:
            found[name] = None
        except Exception as error:
            found[name] = {"error": " ".join(str(error).split()), "equal": False}
        else:
            found[name] = {"version": version, **compare(expected, values)}
    return found
