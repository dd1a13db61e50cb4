"""TripletLoss: rows that are given as triplets, or triplets found in a batch."""

from __future__ import annotations

import numpy as np

from caffe_metric.layers.base import (
    TRAIN,
    MetricLossLayer,
    check_finite,
    check_labels,
    label_column,
    rows_of,
    zero_others,
)
from caffe_metric.losses.triplet_batch import TOO_LARGE, triplet_batch
from caffe_metric.rules.reference.triplet import TripletOptions


class TripletLossLayer(MetricLossLayer):
    """Draws positives nearer to their anchors than negatives, by a margin.

    bottoms  1: features, in groups of 2 + num_negatives rows: anchor, positive, negatives
             2: features and labels; triplets are mined in the batch
             3: anchors, positives, negatives, row i of each
             4: the same and weights, one a row
    top 0    the loss: the sum over the triplets, divided by 2 x groups, or, of a mined batch, by
             the number of triplets with a loss > 0; or by what `normalization` says
    top 1    optional: fraction of triplets with a loss > 0; of a mined batch, of its pairs (a, p)
             that got one (HARDEST: of its anchors; ALL: of its triplets)
    top 2    optional: mean d_ap, in the units of `distance`; of a mined batch, the mean distance
             of all pairs of one class
    top 3    optional: mean d_an; of a mined batch, the mean distance of all pairs of two classes

    HINGE  max(0, d_ap - d_an + margin)         Schroff et al. 2015, equation 3
    RATIO  max(0, 1 - d_an / (d_ap + margin))   Wohlhart & Lepetit 2015, equation 3
    SOFT   log(1 + exp(d_ap - d_an))            Hermans et al. 2017, section 2

    Parameters: TripletLossParameter, normalization.
    """

    MESSAGE = "TripletLossParameter"
    MOST_TOPS = 4

    def configure(self, bottom, top):
        p = self.parameters
        if not 1 <= len(bottom) <= 4:
            raise ValueError(f"has {len(bottom)} bottoms, must have 1 to 4")
        if p.losstype == "RATIO" and not p.margin > 0:
            raise ValueError(f"margin is {p.margin:g}, must be > 0 with losstype RATIO")
        if p.distance == "LP" and not p.p > 0:
            raise ValueError(f"p is {p.p:g}, must be > 0 with distance LP")
        if p.num_negatives < 1:
            raise ValueError(f"num_negatives is {p.num_negatives}, must be >= 1")
        self._options = TripletOptions.of(p)
        self._mined = len(bottom) == 2
        self._group = 2 + p.num_negatives if len(bottom) == 1 else 1

    def shape(self, bottom, top):
        super().shape(bottom, top)
        rows = rows_of(bottom[0])
        if len(rows) % self._group:
            raise ValueError(
                f"the batch of {len(rows)} rows is no multiple of {self._group}, "
                f"the rows of an anchor, a positive and {self._group - 2} negatives"
            )
        if self._mined:
            label_column(bottom[1], len(rows))
        for i in range(1, min(len(bottom), 3) if len(bottom) > 2 else 1):
            if list(bottom[i].shape) != list(bottom[0].shape):
                raise ValueError(
                    f"bottom {i} has shape {list(bottom[i].shape)}, "
                    f"the anchors have {list(bottom[0].shape)}"
                )
        if len(bottom) == 4 and bottom[3].count != len(rows):
            raise ValueError(f"has {len(rows)} triplets and {bottom[3].count} weights")

    def compute(self, bottom, top):
        if self._mined:
            sums, groups = self._compute_batch(bottom)
            default = max(sums.active, 1)
        else:
            sums, groups = self._compute_rows(bottom)
            default = 2 * max(groups, 1)
        self._normalizer = sums.normalizer(self.normalization, groups, default)
        self.report(top, sums.tops(self._normalizer))

    def propagate(self, top, propagate_down, bottom):
        scale = float(top[0].diff) / self._normalizer
        if self._mined:
            zero_others(propagate_down, bottom)
            if propagate_down[0]:
                np.multiply(
                    self._gradient().reshape(bottom[0].diff.shape),
                    bottom[0].diff.dtype.type(scale),
                    out=bottom[0].diff,
                )
            return
        zero_others(propagate_down, bottom, 3)
        features = range(min(len(bottom), 3))
        if not any(propagate_down[i] for i in features):
            return
        out = self._rows(bottom, "diff")
        if len(bottom) > 1:
            out = [d if propagate_down[i] else np.empty_like(d) for i, d in enumerate(out)]
        self._triplets.gradient(scale, *out)

    def _compute_batch(self, bottom):
        x = rows_of(bottom[0])
        labels = label_column(bottom[1], len(x))
        check_finite(x, "features")
        check_labels(labels)
        mining = self.parameters.mining
        key = self.draw_key() if mining in ("SEMIHARD", "VIOLATING") else 0
        train = self.phase == TRAIN
        sums, self._gradient = triplet_batch(
            self._options, mining, x, labels, key, self.rules, with_gradient=train
        )
        return sums, len(x)

    def _compute_rows(self, bottom):
        weight = None
        if len(bottom) == 4:
            weight = bottom[3].data.reshape(-1)
            check_finite(weight[:, None], "weights")
        rows = self._rows(bottom, "data")
        with np.errstate(over="ignore", invalid="ignore"):
            self._triplets = self.rules.RowTriplets(self._options, *rows, weight)
        sums = self._triplets.sums
        if not np.isfinite(sums.d_ap + sums.d_an):
            names = ("anchors", "positives", "negatives") if len(bottom) > 1 else ("features",)
            for i, name in enumerate(names):
                check_finite(rows_of(bottom[i]), name)
            raise ValueError(TOO_LARGE)
        return sums, len(rows[0])

    def _rows(self, bottom, of):
        """Anchors and positives G x D, negatives G x K x D: views of the data, or of the diff."""
        if len(bottom) == 1:
            array = getattr(bottom[0], of)
            groups = array.reshape(len(array) // self._group, self._group, -1)
            return groups[:, 0], groups[:, 1], groups[:, 2:]
        a, p, n = (getattr(bottom[i], of) for i in range(3))
        rows = len(a)
        return a.reshape(rows, -1), p.reshape(rows, -1), n.reshape(rows, 1, -1)
