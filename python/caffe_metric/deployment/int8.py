"""An ONNX net in 8-bit integers, by onnxruntime's static quantisation, and what that costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from caffe_metric.data.identity.source import open_images
from caffe_metric.deployment import preprocess, runtimes
from caffe_metric.support.errors import UserError

FILE = "deploy.int8.onnx"
CALIBRATION = 256  # images, spread over the data
MEASURED = 2000
BATCH = 16


def quantise(folder, data) -> dict:
    """Writes deploy.int8.onnx beside deploy.onnx, calibrated on images; returns what it costs.

    cosine: least and mean, of the float net's outputs and the integer net's. verification: AUC, EER
    and TAR at each FAR of both, where some labels of the images come twice. Raises UserError.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    folder = Path(folder)
    prepared = preprocess.read(folder)
    source = open_images(data, picture=prepared.picture())
    count = len(source.labels)
    chosen = np.unique(np.linspace(0, count - 1, min(count, CALIBRATION)).astype(int))

    class Reader(CalibrationDataReader):
        def __init__(self):
            self._rows = iter(chosen)

        def get_next(self):
            row = next(self._rows, None)
            return None if row is None else {prepared.input: _input(row)[None]}

    def _input(row):
        return prepared.apply(source.load(int(row)), folder)

    try:
        quantize_static(
            str(folder / "deploy.onnx"),
            str(folder / FILE),
            Reader(),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["Conv", "Gemm", "MatMul"],
            nodes_to_exclude=_sums(folder / "deploy.onnx"),
        )
    except ValueError as error:
        raise UserError(f"--int8: {error}") from error
    rows = np.unique(np.linspace(0, count - 1, min(count, MEASURED)).astype(int))
    outputs = {"float": [], "int8": []}
    for start in range(0, len(rows), BATCH):
        images = np.stack([_input(row) for row in rows[start : start + BATCH]])
        for name, file in (("float", "deploy.onnx"), ("int8", FILE)):
            found, _ = runtimes.by_onnxruntime(folder, prepared.output, images, file)
            outputs[name].append(found.reshape(len(images), -1))
    outputs = {name: np.concatenate(parts) for name, parts in outputs.items()}
    report = {
        "calibrated_on": len(chosen),
        "measured_on": len(rows),
        "cosine": _cosines(outputs["float"], outputs["int8"]),
    }
    labels = source.labels[rows]
    _, sizes = np.unique(labels, return_counts=True)
    if len(sizes) > 1 and sizes.max() > 1:
        report["verification"] = {
            name: _verification(array, labels) for name, array in outputs.items()
        }
    return report


def _sums(path):
    """The products with ones in a Norm: sums of squares span more than 8 bits."""
    import onnx

    model = onnx.load(str(path))
    return [
        node.name
        for node in model.graph.node
        if node.op_type in ("Conv", "Gemm") and node.name.split("/")[0].endswith("_sums")
    ]


def _cosines(first, second):
    products = np.einsum("nd,nd->n", first, second, dtype=np.float64)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosines = products / np.where(norms > 0, norms, 1)
    return {"least": float(cosines.min()), "mean": float(cosines.mean())}


def _verification(embeddings, labels):
    from caffe_metric.evaluation.report import verify_all_pairs

    numbers = verify_all_pairs(embeddings, labels)[0]
    return {name: numbers[name] for name in ("auc", "eer", "tar_at_far")}
