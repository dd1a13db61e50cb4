"""An older name of `caffe_metric.layers.NormLayer`."""

from __future__ import annotations

from caffe_metric.layers import NormLayer
from caffe_metric.layers.older import OlderParameters


class Norm2Layer(OlderParameters, NormLayer):
    """y = x / ||x|| over axis 1, with its gradient."""
