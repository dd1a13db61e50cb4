"""What the losses over the pairs of a batch have in common, as Python layers."""

from __future__ import annotations

import numpy as np

from caffe_metric import suite
from caffe_metric.layers.base import (
    TRAIN,
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

    A subclass defines MESSAGE. Its rule: rules/reference/batch_rules.py.

    With `rows` of BatchMemoryParameter the rows of earlier TRAIN forwards are met, too, without a
    gradient (Wang et al. 2020). A ring of so many is kept in three blobs: rows x D features, rows
    labels, and two numbers, the next place and how many are filled. A Python layer cannot set their
    learning rates, so its prototxt has, three times, param { lr_mult: 0 decay_mult: 0 }.
    """

    MOST_TOPS = 4

    def configure(self, bottom, top):
        if len(bottom) != 2:
            raise ValueError(f"has {len(bottom)} bottoms, must have 2: features and labels")
        self.check_positive()
        self._width, rows = rows_of(bottom[0]).shape[1], self.parameters.rows
        if rows and getattr(self.parameters, "form", None) == "SONG":
            raise ValueError("form SONG meets no memory: a pair needs what both of its rows meet")
        if rows:
            self.add_blobs((rows, self._width), (rows,), (2,))

    def shape(self, bottom, top):
        super().shape(bottom, top)
        rows = rows_of(bottom[0])
        label_column(bottom[1], len(rows))
        if self.parameters.rows and rows.shape[1] != self._width:
            raise ValueError(f"the features have width {rows.shape[1]}, the memory {self._width}")

    def compute(self, bottom, top):
        x = rows_of(bottom[0])
        labels = label_column(bottom[1], len(x))
        check_finite(x, "features")
        check_labels(labels)
        memory = self._recall() if self.parameters.rows else None
        kind = suite.of_message(self.MESSAGE).type
        sums, self._gradient = batch_pairs(kind, self.parameters, x, labels, self.rules, memory)
        self._normalizer = sums.normalizer(self.normalization)
        self.report(top, sums.tops(self._normalizer))
        if self.parameters.rows and self.phase == TRAIN:
            self._remember(x, labels)

    def _recall(self):
        """Copies of the rows and labels that the ring holds."""
        held = int(self.blobs[2].data[1])
        return self.blobs[0].data[:held].copy(), self.blobs[1].data[:held].copy()

    def _remember(self, x, labels) -> None:
        """Puts a batch into the ring, in the place of the oldest rows."""
        size, (place, filled) = self.parameters.rows, self.blobs[2].data.astype(int)
        x, labels = x[-size:], labels[-size:]
        places = (place + np.arange(len(x))) % size
        self.blobs[0].data[places], self.blobs[1].data[places] = x, labels
        self.blobs[2].data[...] = (place + len(x)) % size, min(size, filled + len(x))

    def propagate(self, top, propagate_down, bottom):
        zero_others(propagate_down, bottom)
        if propagate_down[0]:
            scale = top[0].diff.dtype.type(top[0].diff / self._normalizer)
            np.multiply(self._gradient().reshape(bottom[0].diff.shape), scale, out=bottom[0].diff)
