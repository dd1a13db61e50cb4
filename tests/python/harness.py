"""Runs one layer through pycaffe: C++ or Python, with given bottoms, weights and top diffs."""

import functools
import importlib.util
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from caffe_metric import suite

pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")

import caffe

FIELDS = {row.type: row.field for row in suite.NATIVE}
ENUMS = {"losstype", "distance", "mining", "type", "gradient"}
# numpy: a Python layer without the compiled rules of caffe_metric._core.
ENGINES = ["cpp", "python", "numpy"]


@functools.lru_cache(maxsize=1)
def missing():
    """{engine: why it cannot be tested}."""
    reasons = {}
    if "TripletLoss" not in caffe.layer_type_list():
        reasons["cpp"] = "this Caffe is not patched"
    if importlib.util.find_spec("caffe_metric.layers") is None:
        reasons["python"] = reasons["numpy"] = "caffe_metric.layers is not installed"
    return reasons


def need(engine):
    if engine in missing():
        pytest.skip(missing()[engine])


@dataclass
class Spec:
    """A layer: its type, parameters, and how many tops it has."""

    type: str
    parameters: dict = field(default_factory=dict)
    tops: int = 1
    engine: str = "cpp"
    normalization: str | None = None
    loss_weight: float | None = None
    name: str = "checked"
    extra: str = ""

    def text(self, bottoms):
        lines = [f'name: "{self.name}"'] + [f'bottom: "{bottom}"' for bottom in bottoms]
        lines += [f'top: "top{i}"' for i in range(self.tops)]
        weight = self.loss_weight
        if self.engine == "cpp":
            lines.append(f'type: "{self.type}"')
            if self.parameters:
                lines.append(f"{FIELDS[self.type]} {{ {_fields(self.parameters)} }}")
            if self.normalization:
                lines.append(f"loss_param {{ normalization: {self.normalization} }}")
        else:
            given = {"name": self.name, **self.parameters}
            given.pop("weight_filler", None)
            if self.normalization:
                given["normalization"] = self.normalization
            if self.engine == "numpy":
                given["backend"] = "numpy"
            text = "{" + ", ".join(f"{key}: {_yaml(value)}" for key, value in given.items()) + "}"
            lines += [
                'type: "Python"',
                f'python_param {{ module: "caffe_metric.layers" layer: "{self.type}Layer" '
                f'param_str: "{text}" }}',
            ]
            if self.type.endswith("Loss") and weight is None:
                weight = 1
        if weight is not None:
            lines += [f"loss_weight: {weight}"] + ["loss_weight: 0"] * (self.tops - 1)
        return "layer {\n  " + "\n  ".join([*lines, self.extra]) + "\n}\n"


def _fields(parameters):
    return " ".join(
        f"{key} {value}" if key == "weight_filler" else f"{key}: {_proto(key, value)}"
        for key, value in parameters.items()
    )


def _proto(key, value):
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) or key in ENUMS else repr(value)


def _yaml(value):
    return str(value).lower() if isinstance(value, bool) else value


def build(text, phase=caffe.TRAIN):
    """A net of a prototxt's text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.prototxt"
        path.write_text(text, encoding="utf-8")
        return caffe.Net(str(path), phase)


def inputs(bottoms):
    """Input layers for arrays by name."""
    return "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ '
        + " ".join(f"dim: {n}" for n in np.shape(value))
        + " } } }\n"
        for name, value in bottoms.items()
    )


@dataclass
class Run:
    """A net of one layer."""

    net: object
    bottoms: dict
    spec: Spec

    @property
    def layer(self):
        return self.net.layers[list(self.net._layer_names).index(self.spec.name)]

    @property
    def blobs(self):
        return list(self.layer.blobs)

    def forward(self, seed=1, **bottoms):
        """The tops, as float32 arrays."""
        for name, value in {**self.bottoms, **bottoms}.items():
            if np.size(value):  # an empty blob has no memory to be asked for
                self.net.blobs[name].data[...] = value
        caffe.set_random_seed(seed)
        self.net.forward()
        return [self.net.blobs[f"top{i}"].data.copy() for i in range(self.spec.tops)]

    def backward(self, *top_diffs):
        """The bottoms' gradients by name; blobs[i].diff holds those of the weights."""
        for blob in self.blobs:
            blob.diff[...] = 0
        for i, diff in enumerate(top_diffs):
            self.net.blobs[f"top{i}"].diff[...] = diff
        self.net._backward(len(self.net.layers) - 1, 0)
        return {
            name: self.net.blobs[name].diff.copy()
            for name in self.bottoms
            if np.size(self.bottoms[name])
        }


def run(spec, bottoms, weights=None, phase=caffe.TRAIN):
    """A net of the layer, every gradient asked for. weights: an array for blob 0."""
    need(spec.engine)
    text = "force_backward: true\n" + inputs(bottoms) + spec.text(bottoms)
    made = Run(build(text, phase), dict(bottoms), spec)
    if weights is not None:
        made.blobs[0].data[...] = weights
    return made


def relative_error(ours, theirs, floor=0.0):
    """Greatest difference, relative to the greatest number of either array, at least `floor`."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, f"{ours.shape} is not {theirs.shape}"
    size = max(np.abs(ours).max(initial=0), np.abs(theirs).max(initial=0), floor)
    return float(np.abs(ours - theirs).max(initial=0) / size) if size else 0.0


def assert_close(ours, theirs, tolerance, floor=0.0):
    assert np.isfinite(ours).all()
    error = relative_error(ours, theirs, floor)
    assert error <= tolerance, f"relative error {error:.2e} > {tolerance:.0e}\n{ours}\n{theirs}"


def unit_rows(rng, n, d):
    x = rng.normal(size=(n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
