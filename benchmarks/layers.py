"""Nets of one layer, and the data they are timed with."""

from __future__ import annotations

import os

import numpy as np

os.environ.setdefault("GLOG_minloglevel", "2")

from caffe_metric.nets import one_layer

from benchmarks.timing import Contender


class OneLayer:
    """A net of one layer in the TRAIN phase, whose bottoms are given arrays."""

    def __init__(self, kind: str, body: str, bottoms: dict[str, np.ndarray], tops: int = 1):
        names = [f'bottom: "{name}"' for name in bottoms] + [f'top: "top{i}"' for i in range(tops)]
        layer = f'layer {{ name: "layer" type: "{kind}" {" ".join(names)} {body} }}'
        self.net = one_layer.build("force_backward: true\n" + one_layer.inputs(bottoms) + layer)
        for name, value in bottoms.items():
            self.net.blobs[name].data[...] = value
        self._last = len(self.net.layers) - 1

    @property
    def top(self):
        return self.net.blobs["top0"]

    @property
    def weights(self):
        return self.net.params["layer"][0]

    def forward(self) -> None:
        self.net._forward(self._last, self._last)

    def backward(self) -> None:
        self.net._backward(self._last, self._last)

    def both(self) -> None:
        """Forward and backward of the layer alone."""
        self.forward()
        self.backward()

    def contender(self, name: str, rounds: int = 0, prepare=lambda: None) -> Contender:
        return Contender(name, self.both, prepare, rounds)


def python_layer(kind: str, parameters: str, backend: str) -> tuple[str, str]:
    """Type and body of the Python layer of that kind, with our parameters as YAML."""
    weight = "loss_weight: 1 " if kind.endswith("Loss") else ""
    text = f"{{backend: {backend}, {parameters}}}"
    return "Python", (
        f'{weight}python_param {{ module: "caffe_metric.layers" layer: "{kind}Layer" '
        f'param_str: "{text}" }}'
    )


def unit_rows(rows: int, dim: int, seed: int = 7) -> np.ndarray:
    """Random features of length 1."""
    x = np.random.default_rng(seed).standard_normal((rows, dim), dtype=np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def labels_of(rows: int, images: int) -> np.ndarray:
    """Labels with that number of images an identity, side by side."""
    return (np.arange(rows) // images).astype(np.float32)
