"""An older name of `caffe_metric.layers.TripletLossLayer`."""

from __future__ import annotations

from caffe_metric.layers import TripletLossLayer
from caffe_metric.layers.older import OlderParameters


class TripletLayer(OlderParameters, TripletLossLayer):
    """sum max(0, ||a - p||^2 - ||a - n||^2 + margin) / (2 N) over anchors, positives, negatives.

    bottoms  anchors, positives, negatives: N x D each
    top      the loss
    param_str: "'margin': 0.2"
    """

    KNOWN = ("margin",)

    def configure(self, bottom, top):
        if len(bottom) != 3:
            raise ValueError(
                f"has {len(bottom)} bottoms, must have 3: anchors, positives, negatives"
            )
        super().configure(bottom, top)
