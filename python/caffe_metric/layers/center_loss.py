"""CenterLoss: each row's distance to the centre of its class, which follows its rows."""

from __future__ import annotations

import numpy as np

from caffe_metric.layers.base import (
    MetricLossLayer,
    check_finite,
    check_labels,
    label_column,
    zero_others,
)
from caffe_metric.losses.center import center, center_changes


class CenterLossLayer(MetricLossLayer):
    """Draws the rows of a class to a centre, beside a loss that keeps the classes apart.

    bottom 0  features, N x D after `axis`
    bottom 1  labels, N, integers in [0, num_output)
    top 0     the loss
    blob 0    centres, num_output x D

    1/(2N) sum ||x - c_y||^2 (Wen et al. 2016, equation 2). The diff of the centres is, with update
    DELTA, the sum of c - x over the n rows of a class in the batch, divided by 1 + n (equation 4),
    whatever the loss_weight; with GRADIENT the derivative. Parameters: CenterLossParameter.
    """

    MESSAGE = "CenterLossParameter"

    def configure(self, bottom, top):
        p = self.parameters
        if len(bottom) != 2:
            raise ValueError(f"has {len(bottom)} bottoms, must have 2: features and labels")
        if not p.num_output:
            raise ValueError(f"num_output is {p.num_output}, must be >= 1")
        self._width = self._measure(bottom[0])
        if self.add_blobs((p.num_output, self._width)):
            self.fill(self.blobs[0].data, p.center_filler, "center_filler")

    def _measure(self, blob) -> int:
        shape, axis = list(blob.shape), self.parameters.axis
        if not -len(shape) <= axis < len(shape):
            raise ValueError(f"axis is {axis}, the features have shape {shape}")
        return int(np.prod(shape[axis % len(shape) :], dtype=np.int64))

    def shape(self, bottom, top):
        super().shape(bottom, top)
        width = self._measure(bottom[0])
        if width != self._width:
            raise ValueError(f"the features have width {width}, the centres {self._width}")
        label_column(bottom[1], bottom[0].count // width)

    def compute(self, bottom, top):
        x = bottom[0].data.reshape(-1, self._width)
        labels = label_column(bottom[1], len(x))
        check_finite(x, "features")
        check_labels(labels, self.parameters.num_output)
        self._labels = labels.astype(np.int64)
        loss, self._difference = center(x, self._labels, self.blobs[0].data)
        self.report(top, (loss / len(x),))

    def propagate(self, top, propagate_down, bottom):
        zero_others(propagate_down, bottom)
        scale = top[0].diff.dtype.type(top[0].diff / len(self._difference))
        if propagate_down[0]:
            bottom[0].diff[...] = (scale * self._difference).reshape(bottom[0].diff.shape)
        published = self.parameters.update == "DELTA"
        centers = self.blobs[0]
        changes = center_changes(self._difference, self._labels, centers.data, published)
        centers.diff[...] += changes if published else scale * changes
