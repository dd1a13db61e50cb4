"""The loss of listed triplets, the rows of one matrix."""

from __future__ import annotations

import numpy as np

from caffe_metric.rules.reference.pairs import BLOCK, pairs_gradient
from caffe_metric.rules.reference.triplet import TripletOptions, TripletSums, triplet_rule


def listed_triplets(options: TripletOptions, batch, a, p, n, d_ap, d_an):
    """The sums over triplets (row numbers a, p, n), and a function that gives their gradient."""
    # The negative's distance is to the anchor or, swapped, to the positive.
    first = a
    if options.swap and len(a):
        d_pn = _row_distances(batch, p, n)
        first = np.where(d_pn < d_an, p, a)
        d_an = np.minimum(d_an, d_pn)
    loss, on_ap, on_an = triplet_rule(options.losstype, options.margin, d_ap, d_an)
    sums = TripletSums(
        loss=float((loss + d_ap * options.use_pair).sum(dtype=np.float64)),
        count=len(a),
        active=int(np.count_nonzero(loss > 0)),
        d_ap=float(d_ap.sum(dtype=np.float64)),
        d_an=float(d_an.sum(dtype=np.float64)),
    )
    coefficients = np.r_[on_ap + options.use_pair, on_an].astype(d_ap.dtype)
    pairs = (np.r_[a, first], np.r_[p, n], np.r_[d_ap, d_an])

    def gradient():
        return pairs_gradient(batch, *pairs, coefficients)

    return sums, gradient


def _row_distances(batch, u, v):
    x = batch.x
    out = np.empty(len(u), x.dtype)
    step = max(1, BLOCK // max(1, x.shape[1]))
    for start in range(0, len(u), step):
        block = slice(start, start + step)
        out[block] = batch.distance.rows(x[u[block]], x[v[block]])
    return out
