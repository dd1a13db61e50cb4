"""An older name: triplets by the order of the rows in a batch.

`caffe_metric.layers.TripletSelectLayer` selects by label.
"""

from __future__ import annotations

import numpy as np
from caffe_metric.layers import TripletSelectLayer as _TripletSelectLayer
from caffe_metric.layers.base import check_finite, rows_of
from caffe_metric.layers.older import OlderParameters


class TripletSelectLayer(OlderParameters, _TripletSelectLayer):
    """A batch of a third anchors, a third positives and a third negatives, in this order.

    bottom 0  features, N x D x ..., N a multiple of 3
    bottom 1  optional: labels, not looked at
    top 0..2  anchors, positives, negatives, N/3 rows each. Anchors stay in their order; positives
              and negatives each stand by falling squared distance from the first anchor

    A triplet whose positive is at least as far from the first anchor as its negative passes no
    gradient. The other gradients go back to the rows that the tops came from.
    """

    def configure(self, bottom, top):
        if not 1 <= len(bottom) <= 2 or len(top) != 3:
            raise ValueError(
                f"has {len(bottom)} bottoms and {len(top)} tops, must have 1 or 2 bottoms "
                "(features, labels) and 3 tops (anchors, positives, negatives)"
            )

    def shape(self, bottom, top):
        rows = len(rows_of(bottom[0]))
        if rows == 0 or rows % 3:
            raise ValueError(f"the batch of {rows} rows is no multiple of 3")
        self._shape_tops(bottom, top, rows // 3)

    def select(self, bottom):
        x = rows_of(bottom[0])
        check_finite(x, "features")
        third = len(x) // 3
        difference = x - x[0]
        distance = np.einsum("nd,nd->n", difference, difference)
        positive, negative = (
            start + np.argsort(-distance[start : start + third], kind="stable")
            for start in (third, 2 * third)
        )
        self.passing = distance[positive] < distance[negative]
        return np.arange(third), positive, negative
