"""TripletLoss over triplets that are found in a batch of features with labels.

No array of N x N is made where a strip of rows of the distance matrix serves.
"""

from __future__ import annotations

import numpy as np

from caffe_metric.rules.reference.distance import L2, SQUARED_L2
from caffe_metric.rules.reference.strips import STRIP, strips
from caffe_metric.rules.reference.triplet import TripletOptions, TripletSums

TOO_LARGE = "the features are too large: a distance of two rows is beyond the largest number"


def triplet_batch(
    options: TripletOptions, mining: str, x, labels, key: int, backend, with_gradient=True
):
    """The sums over the triplets of a batch, and a function that gives their gradient, N x D.

    x              N x D features, float32 or float64, C-contiguous
    labels         N, of the type of x
    key            of the random draws, 64 bits
    with_gradient  whether ALL collects the gradient on the way: else the function starts again

    The gradient is that of the sum of losses. The function is called at most once.
    """
    batch = _distances(options, x, backend)
    pairs = np.zeros(4)
    if mining != "ALL":
        triplets = _mined(options, mining, batch, labels, key, backend, pairs)
        sums, gradient = backend.listed_triplets(options, batch, *triplets)
        _report(sums, len(x) if mining == "HARDEST" else pairs[0], pairs)
        return sums, gradient
    collected = backend.GramGradient(batch) if with_gradient else None
    sums = _all(options, batch, labels, backend, collected, pairs)
    _report(sums, sums.count, pairs)
    if with_gradient:
        return sums, collected.result

    def again():
        return triplet_batch(options, mining, x, labels, key, backend)[1]()

    return sums, again


def mined_triplets(options: TripletOptions, mining: str, x, labels, key: int, backend):
    """Row numbers of the anchors, positives and negatives of SEMIHARD, VIOLATING or HARDEST."""
    batch = _distances(options, x, backend)
    return _mined(options, mining, batch, labels, key, backend, np.zeros(4))[:3]


def _distances(options, x, backend):
    """The distances of a batch of finite rows. Raises ValueError where one is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        batch = backend.GramDistances(options.distance, x)
        if options.distance.kind not in (SQUARED_L2, L2):
            return batch
        # No squared distance is above four times the greatest squared norm.
        if 4 * np.einsum("nd,nd->n", batch.u, batch.u).max(initial=0) <= np.finfo(x.dtype).max:
            return batch
        if not all(np.isfinite(batch.strip(rows)).all() for rows in strips(len(x))):
            raise ValueError(TOO_LARGE)
    return batch


def every_triplet(labels):
    """Row numbers of the anchors, positives and negatives of ALL, ordered by them."""
    same = labels[:, None] == labels
    pairs = same.copy()
    np.fill_diagonal(pairs, False)
    a, p = np.nonzero(pairs)
    pair, n = np.nonzero(~same[a])
    return a[pair], p[pair], n


def _report(sums, candidates, pairs):
    """What the tops say: of the batch, not of what was picked of it.

    candidates  pairs (a, p), anchors or triplets, by what can have a triplet with a loss > 0
    pairs       of backend.pair_sums
    """
    same, others, of_same, of_others = pairs
    if not np.isfinite(of_same + of_others):
        raise ValueError(TOO_LARGE)
    sums.means = (
        sums.active / max(candidates, 1),
        of_same / max(same, 1),
        of_others / max(others, 1),
    )


def _mined(options, mining, batch, labels, key, backend, pairs):
    """Row numbers of the anchors, positives and negatives, and d_ap and d_an. Adds to pairs."""
    parts = []
    for rows in strips(len(labels)):
        d = batch.strip(rows)
        pairs += backend.pair_sums(d, rows, labels)
        a, p, n = backend.mine(mining, d, rows, labels, options.margin, key)
        parts.append((a, p, n, d[a - rows[0], p], d[a - rows[0], n]))
    return tuple(np.concatenate(column) for column in zip(*parts))


def _all(options, batch, labels, backend, gradient, pairs) -> TripletSums:
    total = TripletSums()
    whole = len(labels) ** 2 <= STRIP
    for rows in _class_strips(labels) if options.swap and not whole else strips(len(labels)):
        d = batch.strip(rows)
        pairs += backend.pair_sums(d, rows, labels)
        sums, slopes = backend.all_triplets(options, d, rows, labels)
        total += sums
        if gradient is not None:
            gradient.add(rows, d, slopes)
    return total


def _class_strips(labels):
    """Strips of whole classes: with swap, the distances d(p, n) must be rows of the strip too."""
    order = np.argsort(labels, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(labels[order]) != 0, True]) + 1
    step = max(1, STRIP // len(labels))
    start = 0
    while start < len(order):
        fitting = ends[(ends > start) & (ends <= start + step)]
        end = fitting[-1] if len(fitting) else ends[ends > start][0]
        yield order[start:end]
        start = end
