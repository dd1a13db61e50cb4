"""TripletSelect: rows of a batch as anchors, positives and negatives."""

from __future__ import annotations

import numpy as np

from caffe_metric.layers.base import (
    MetricLayer,
    check_finite,
    check_labels,
    label_column,
    rows_of,
    zero_others,
)
from caffe_metric.losses.triplet_batch import every_triplet, mined_triplets
from caffe_metric.rules.reference.strips import add_rows
from caffe_metric.rules.reference.triplet import TripletOptions

PARAMETERS = ("mining", "margin", "distance", "p", "eps")


class TripletSelectLayer(MetricLayer):
    """Copies the rows of triplets, for a loss that takes anchors, positives and negatives.

    bottom 0  features, N x D x ...
    bottom 1  labels, N
    top 0..2  anchors, positives, negatives: T x D x ..., row i of each a triplet; T changes from
              batch to batch
    top 3     optional: weights, T: 1 for each triplet (the fourth bottom of TripletLoss)

    A batch without a triplet gives one row of zeros, of weight 0. The gradients of the tops are
    summed back to the rows that they came from.

    Parameters: mining, margin, distance, p, eps of TripletLossParameter; mining is HARDEST here
    where it is not given, so that every batch of at least two classes gives triplets.
    """

    MESSAGE = "TripletLossParameter"

    _rows = None
    passing = slice(None)  # the triplets that pass a gradient

    def parse(self, values):
        refused = [name for name in values if name not in PARAMETERS]
        if refused:
            raise ValueError(f"unknown parameter '{refused[0]}': known are {', '.join(PARAMETERS)}")
        return super().parse({"mining": "HARDEST", **values})

    def configure(self, bottom, top):
        if len(bottom) != 2 or not 3 <= len(top) <= 4:
            raise ValueError(
                f"has {len(bottom)} bottoms and {len(top)} tops, must have 2 bottoms (features, "
                "labels) and 3 or 4 tops (anchors, positives, negatives, weights)"
            )
        if self.parameters.distance == "LP" and not self.parameters.p > 0:
            raise ValueError(f"p is {self.parameters.p:g}, must be > 0 with distance LP")
        self._options = TripletOptions.of(self.parameters)

    def shape(self, bottom, top):
        label_column(bottom[1], len(rows_of(bottom[0])))
        self._shape_tops(bottom, top, 1 if self._rows is None else max(len(self._rows[0]), 1))

    def compute(self, bottom, top):
        self._rows = self.select(bottom)
        count = len(self._rows[0])
        self._shape_tops(bottom, top, max(count, 1))
        for i in range(3):
            if count:
                np.take(bottom[0].data, self._rows[i], axis=0, out=top[i].data)
            else:
                top[i].data[...] = 0
        if len(top) > 3:
            top[3].data[...] = count > 0

    def select(self, bottom):
        """Row numbers of the anchors, positives and negatives."""
        x = rows_of(bottom[0])
        labels = label_column(bottom[1], len(x))
        check_finite(x, "features")
        check_labels(labels)
        mining = self.parameters.mining
        if mining == "ALL":
            return every_triplet(labels)
        key = self.draw_key() if mining != "HARDEST" else 0
        return mined_triplets(self._options, mining, x, labels, key, self.rules)

    def propagate(self, top, propagate_down, bottom):
        zero_others(propagate_down, bottom)
        if not propagate_down[0]:
            return
        bottom[0].diff[...] = 0
        diff = bottom[0].diff.reshape(len(bottom[0].diff), -1)
        for i in range(3):
            part = top[i].diff.reshape(len(top[i].diff), -1)[: len(self._rows[i])]
            add_rows(diff, self._rows[i][self.passing], part[self.passing])

    @staticmethod
    def _shape_tops(bottom, top, count):
        for i in range(3):
            top[i].reshape(count, *list(bottom[0].shape)[1:])
        if len(top) > 3:
            top[3].reshape(count)
