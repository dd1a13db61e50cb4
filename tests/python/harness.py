"""Runs one layer through pycaffe: C++ or Python, with given bottoms, weights and top diffs."""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass, field

import numpy as np
import pytest
from caffe_metric import suite
from caffe_metric.nets import one_layer

pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")

import caffe

build, inputs = one_layer.build, one_layer.inputs
# numpy: a Python layer without the compiled rules of caffe_metric._core.
ENGINES = one_layer.ENGINES
FIELDS = {row.type: row.field for row in suite.NATIVE}


@functools.lru_cache(maxsize=1)
def missing():
    """{engine: why it cannot be tested}."""
    reasons = {}
    if "TripletLoss" not in caffe.layer_type_list():
        reasons["cpp"] = "this Caffe is not patched"
    if importlib.util.find_spec("caffe_metric.layers") is None:
        reasons["python"] = reasons["numpy"] = "caffe_metric.layers is not installed"
    return reasons


def need(engine, kind="TripletLoss"):
    if engine in missing():
        pytest.skip(missing()[engine])
    if engine == "cpp" and kind not in caffe.layer_type_list():
        pytest.skip(f"this Caffe has no {kind}: ./run build")


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
        # Caffe does not tell a Python layer its name.
        own = {} if self.engine == "cpp" else {"name": self.name}
        return one_layer.layer(
            self.type,
            bottoms,
            [f"top{i}" for i in range(self.tops)],
            {**own, **self.parameters},
            name=self.name,
            engine=self.engine,
            normalization=self.normalization,
            loss_weight=self.loss_weight,
            extra=self.extra,
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
    need(spec.engine, spec.type)
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
