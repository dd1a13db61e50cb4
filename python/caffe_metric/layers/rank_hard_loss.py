"""RankHardLoss: hinges on negatives of hard and random rank."""

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
from caffe_metric.losses.rank_hard import rank_hard


class RankHardLossLayer(MetricLossLayer):
    """A ranking loss over negatives that are drawn from the hardest, and from the rest.

    bottom 0  features, N x D, of unit length (Norm); rows in groups of pair_size, the first of a
              group is the anchor i, the second its positive i + 1
    bottom 1  labels, N
    top 0     the loss
    top 1     optional: fraction of the neg_num x groups x 2 terms that are > 0

    With s(u, v) = -u . v and each taken negative j, the sum over i and j of
    max(0, s(i,i+1) - s(i,j) + margin) + max(0, s(i,i+1) - s(i+1,j) + margin), divided by
    neg_num x groups x 2. Parameters: RankParameter, normalization.
    """

    MESSAGE = "RankParameter"
    MOST_TOPS = 2

    def configure(self, bottom, top):
        p = self.parameters
        if len(bottom) != 2:
            raise ValueError(f"has {len(bottom)} bottoms, must have 2: features and labels")
        if p.pair_size < 2:
            raise ValueError(f"pair_size is {p.pair_size}, must be >= 2: an anchor, its positive")
        if p.neg_num < 1:
            raise ValueError(f"neg_num is {p.neg_num}, must be >= 1")
        for name in ("hard_ratio", "rand_ratio"):
            ratio = getattr(p, name)
            if not 0 <= ratio <= 1:
                raise ValueError(f"{name} is {ratio:g}, must be in [0, 1]")

    def shape(self, bottom, top):
        super().shape(bottom, top)
        rows, group = rows_of(bottom[0]), self.parameters.pair_size
        label_column(bottom[1], len(rows))
        if len(rows) % group:
            raise ValueError(f"the batch of {len(rows)} rows is no multiple of pair_size {group}")

    def compute(self, bottom, top):
        p = self.parameters
        x = rows_of(bottom[0])
        labels = label_column(bottom[1], len(x))
        check_finite(x, "features")
        check_labels(labels)
        anchors = np.arange(0, len(x), p.pair_size)
        unlike = np.flatnonzero(labels[anchors] != labels[anchors + 1])
        if len(unlike):
            i = anchors[unlike[0]]
            raise ValueError(
                f"rows {i} and {i + 1} are an anchor and its positive, but have different labels"
            )
        sums, self._gradient = rank_hard(p, x, labels, self.draw_key(), self.rules)
        self._normalizer = sums.normalizer(self.normalization, p, len(anchors))
        terms = 2 * p.neg_num * max(len(anchors), 1)
        self.report(top, (sums.loss / self._normalizer, sums.active / terms))

    def propagate(self, top, propagate_down, bottom):
        zero_others(propagate_down, bottom)
        if propagate_down[0]:
            scale = top[0].diff.dtype.type(top[0].diff / self._normalizer)
            np.multiply(self._gradient().reshape(bottom[0].diff.shape), scale, out=bottom[0].diff)
