"""Triplets whose rows are given: anchors and positives G x D, negatives G x K x D."""

from __future__ import annotations

import numpy as np

from caffe_metric.rules.reference.triplet import TripletOptions, TripletSums, triplet_rule

# Elements of a block of rows: its intermediate arrays stay in the processor's cache.
BLOCK = 1 << 16


class RowTriplets:
    """The G x K triplets of given rows. `weight` (G) multiplies a group's loss.

    `sums` holds their sums; `gradient` serves the backward pass.
    """

    def __init__(self, options: TripletOptions, a, p, n, weight=None):
        self.blocks, self.sums = [], TripletSums()
        step = max(1, BLOCK // max(1, n[0].size if len(n) else 1))
        for start in range(0, len(n), step):
            part = slice(start, start + step)
            part_weight = None if weight is None else weight[part]
            block = _Block(options, a[part], p[part], n[part], part_weight)
            self.blocks.append((part, block))
            self.sums += block.sums()

    def gradient(self, scale: float, da, dp, dn) -> None:
        """Writes `scale` times the gradient of the sum of losses to da, dp and dn."""
        for part, block in self.blocks:
            block.gradient(scale, da[part], dp[part], dn[part])


class _Block:
    """Distances, losses and slopes of some groups."""

    def __init__(self, options, a, p, n, weight):
        self.options, self.a, self.p, self.n, self.weight = options, a, p, n, weight
        distance = options.distance
        self.d_ap = distance.rows(a, p)
        self.d_an = distance.rows(a[:, None], n)
        self.taken = self.d_an
        if options.swap:
            self.d_pn = distance.rows(p[:, None], n)
            self.swapped = self.d_pn < self.d_an
            self.taken = np.where(self.swapped, self.d_pn, self.d_an)
        self.loss, self.slope_ap, self.slope_an = triplet_rule(
            options.losstype, options.margin, self.d_ap[:, None], self.taken
        )

    def sums(self) -> TripletSums:
        loss = self.loss.sum(axis=1)
        if self.options.use_pair:
            loss = loss + self.d_ap
        if self.weight is not None:
            loss = loss * self.weight
        return TripletSums(
            loss=float(loss.sum(dtype=np.float64)),
            count=self.loss.size,
            active=int(np.count_nonzero(self.loss > 0)),
            d_ap=float(self.d_ap.sum(dtype=np.float64)) * self.n.shape[1],
            d_an=float(self.taken.sum(dtype=np.float64)),
        )

    def gradient(self, scale, da, dp, dn) -> None:
        distance, a, p, n = self.options.distance, self.a, self.p, self.n
        factor = a.dtype.type(scale)
        factor = np.full(len(a), factor) if self.weight is None else self.weight * factor
        on_ap = self.slope_ap.sum(axis=1)
        if self.options.use_pair:
            on_ap = on_ap + 1
        da[...], dp[...] = distance.row_gradients(a, p, self.d_ap, on_ap * factor)
        on_an = self.slope_an * factor[:, None]
        on_pn = None
        if self.options.swap:
            on_pn = np.where(self.swapped, on_an, 0)
            on_an = on_an - on_pn
        along_a, dn[...] = distance.row_gradients(a[:, None], n, self.d_an, on_an)
        da += along_a.sum(axis=1)
        if on_pn is not None and self.swapped.any():
            along_p, along_n = distance.row_gradients(p[:, None], n, self.d_pn, on_pn)
            dp += along_p.sum(axis=1)
            dn += along_n
