"""What the losses over the pairs of a batch have in common, as Python layers."""

from __future__ import annotations

import numpy as np

from caffe_metric.layers.base import (
    MetricLossLayer,
    check_finite,
    check_labels,
    label_column,
    rows_of,
    zero_others,
)
from caffe_metric.losses.batch_pairs import batch_pairs


class BatchPairsLayer(MetricLossLayer):
    """A loss in which each row of a batch, the anchor, meets all the others.

    A subclass defines MESSAGE and RULE, of the parameters: see rules/reference/batch_rules.py.
    """

    MOST_TOPS = 4

    def configure(self, bottom, top):
        if len(bottom) != 2:
            raise ValueError(f"has {len(bottom)} bottoms, must have 2: features and labels")
        self.check_positive()

    def shape(self, bottom, top):
        super().shape(bottom, top)
        label_column(bottom[1], len(rows_of(bottom[0])))

    def compute(self, bottom, top):
        x = rows_of(bottom[0])
        labels = label_column(bottom[1], len(x))
        check_finite(x, "features")
        check_labels(labels)
        rule = self.RULE(self.parameters)
        sums, self._gradient = batch_pairs(rule, x, labels, self.rules)
        self._normalizer = rule.normalizer(len(x), sums.active)
        self.report(top, sums.tops(self._normalizer))

    def propagate(self, top, propagate_down, bottom):
        zero_others(propagate_down, bottom)
        if propagate_down[0]:
            scale = top[0].diff.dtype.type(top[0].diff / self._normalizer)
            np.multiply(self._gradient().reshape(bottom[0].diff.shape), scale, out=bottom[0].diff)
