"""TripletLoss over triplets that are found in a batch of features with labels.

No array of N x N is made where a strip of rows of the distance matrix serves.
"""

from __future__ import annotations

import numpy as np

from caffe_metric.reference.gram import GramGradient
from caffe_metric.reference.strips import STRIP, add_rows, strips
from caffe_metric.reference.triplet import TripletOptions, TripletSums, triplet_rule


def triplet_batch(
    options: TripletOptions, mining: str, x, labels, key: int, backend, with_gradient=True
):
    """The sums over the triplets of a batch, and a function that gives their gradient, N x D.

    x              N x D features, float32 or float64, C-contiguous
    labels         N, of the type of x
    key            of the random draws, 64 bits
    with_gradient  whether ALL collects the gradient on the way: else the function starts again

    The gradient is that of the sum of losses.
    """
    batch = backend.GramDistances(options.distance, x)
    if mining != "ALL":
        return _drawn(options, mining, batch, labels, key, backend)
    gradient = GramGradient(batch) if with_gradient else None
    if options.losstype == "HINGE" and not options.swap:
        sums = _all_hinge(options, batch, labels, backend, gradient)
    else:
        sums = _all(options, batch, labels, gradient)
    if with_gradient:
        return sums, gradient.result

    def again():
        return triplet_batch(options, mining, x, labels, key, backend)[1]()

    return sums, again


def _drawn(options, mining, batch, labels, key, backend):
    """One listed triplet a pair, or an anchor."""
    columns = ([], [], [], [], [])
    for rows in strips(len(labels)):
        d = batch.strip(rows)
        a, p, n = backend.mine(mining, d, rows, labels, options.margin, key)
        found = (a, p, n, d[a - rows[0], p], d[a - rows[0], n])
        for column, part in zip(columns, found, strict=True):
            column.append(part)
    a, p, n, d_ap, d_an = (np.concatenate(column) for column in columns)

    # The negative's distance is to the anchor or, swapped, to the positive.
    first = a
    if options.swap and len(a):
        d_pn = _row_distances(options.distance, batch.x, p, n)
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
        return backend.pairs_gradient(batch, *pairs, coefficients)

    return sums, gradient


def mined_triplets(options: TripletOptions, mining: str, x, labels, key: int, backend):
    """Row numbers of the anchors, positives and negatives of SEMIHARD, VIOLATING or HARDEST."""
    batch = backend.GramDistances(options.distance, x)
    parts = [
        backend.mine(mining, batch.strip(rows), rows, labels, options.margin, key)
        for rows in strips(len(labels))
    ]
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def every_triplet(labels):
    """Row numbers of the anchors, positives and negatives of ALL, ordered by them."""
    same = labels[:, None] == labels
    pairs = same.copy()
    np.fill_diagonal(pairs, False)
    a, p = np.nonzero(pairs)
    pair, n = np.nonzero(~same[a])
    return a[pair], p[pair], n


def _row_distances(distance, x, u, v):
    out = np.empty(len(u), x.dtype)
    step = max(1, STRIP // max(1, x.shape[1]))
    for start in range(0, len(u), step):
        block = slice(start, start + step)
        out[block] = distance.rows(x[u[block]], x[v[block]])
    return out


def _all_hinge(options, batch, labels, backend, gradient) -> TripletSums:
    total = TripletSums()
    for rows in strips(len(labels)):
        d = batch.strip(rows)
        sums, slope = backend.all_hinge(d, rows, labels, options.margin)
        total += TripletSums(sums.loss, sums.count, sums.active, sums.d_ap, sums.d_an)
        if options.use_pair:
            total.loss += sums.d_ap
            _add_pair_slopes(slope, rows, labels)
        if gradient is not None:
            gradient.add(rows, d, slope)
    return total


def _add_pair_slopes(slope, rows, labels) -> None:
    """use_pair counts d_ap once a triplet: as often as there are negatives."""
    same = labels[rows][:, None] == labels
    negatives = len(labels) - same.sum(axis=1)
    same[np.arange(len(rows)), rows] = False
    slope += same * negatives[:, None].astype(slope.dtype)


def _all(options, batch, labels, gradient) -> TripletSums:
    """Every triplet, one by one: O(N^2 K) for K positives an anchor.

    A strip holds whole classes, so that the swapped distances d(p, n) are rows of it too.
    """
    total = TripletSums()
    for rows in _class_strips(labels):
        d = batch.strip(rows)
        slope = np.zeros_like(d)
        same = labels[rows][:, None] == labels
        pairs = same[:, rows]
        np.fill_diagonal(pairs, False)
        a, p = np.nonzero(pairs)
        step = max(1, STRIP // len(labels))
        for start in range(0, len(a), step):
            block = slice(start, start + step)
            total += _all_of_pairs(options, d, rows, ~same, a[block], p[block], slope)
        if gradient is not None:
            gradient.add(rows, d, slope)
    return total


def _class_strips(labels):
    """Row numbers in the order of classes, cut between classes where a strip is full."""
    order = np.argsort(labels, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(labels[order]) != 0, True]) + 1
    step = max(1, STRIP // len(labels))
    start = 0
    while start < len(order):
        fitting = ends[(ends > start) & (ends <= start + step)]
        end = fitting[-1] if len(fitting) else ends[ends > start][0]
        yield order[start:end]
        start = end


def _all_of_pairs(options, d, rows, negative, a, p, slope) -> TripletSums:
    """All triplets of the pairs (a, p), row numbers of the strip; adds their slopes by d."""
    mask = negative[a]
    d_ap = d[a, rows[p]][:, None]
    d_an = d[a]
    if options.swap:
        swapped = d[p] < d_an
        d_an = np.where(swapped, d[p], d_an)
    loss, on_ap, on_an = triplet_rule(options.losstype, options.margin, d_ap, d_an)
    on_an = np.where(mask, on_an, 0)
    loss = np.where(mask, loss, 0)
    negatives = mask.sum(axis=1)
    along_ap = np.where(mask, on_ap, 0).sum(axis=1) + options.use_pair * negatives
    slope[a, rows[p]] += along_ap.astype(slope.dtype)
    if options.swap:
        add_rows(slope, p, np.where(swapped, on_an, 0))
        on_an = np.where(swapped, 0, on_an)
    add_rows(slope, a, on_an)
    pair_distance = float((d_ap[:, 0] * negatives).sum(dtype=np.float64))
    return TripletSums(
        loss=float(loss.sum(dtype=np.float64)) + options.use_pair * pair_distance,
        count=int(negatives.sum()),
        active=int(np.count_nonzero(loss > 0)),
        d_ap=pair_distance,
        d_an=float(np.where(mask, d_an, 0).sum(dtype=np.float64)),
    )
