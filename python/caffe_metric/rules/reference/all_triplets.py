"""Sums over every triplet of some anchors, and the slopes of the loss by their distances."""

from __future__ import annotations

import numpy as np

from caffe_metric.rules.reference.strips import add_rows
from caffe_metric.rules.reference.triplet import TripletOptions, TripletSums, triplet_rule

# Elements of a block: its intermediate arrays stay in the processor's cache.
BLOCK = 1 << 18


def all_triplets(options: TripletOptions, d, rows, labels) -> tuple[TripletSums, np.ndarray]:
    """The sums over the triplets of the anchors `rows`, and slopes of the shape of d.

    d is the strip of their distances, len(rows) x N. With swap the rows are whole classes.
    """
    slopes = np.zeros_like(d)
    total = TripletSums()
    if options.losstype == "HINGE" and not options.swap:
        step = max(1, BLOCK // max(1, d.shape[1]))
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            total += _hinge(options, d[part], rows[part], labels, slopes[part])
        return total, slopes
    same = labels[rows][:, None] == labels
    pairs = same.copy()
    pairs[np.arange(len(rows)), rows] = False
    a, p = np.nonzero(pairs)
    place = np.zeros(len(labels), np.int64)  # of a row of the batch in the strip
    place[rows] = np.arange(len(rows))
    step = max(1, BLOCK // max(1, d.shape[1]))
    for start in range(0, len(a), step):
        part = slice(start, start + step)
        total += _pairs(options, d, ~same[a[part]], a[part], p[part], place[p[part]], slopes)
    return total, slopes


def _pairs(options, d, negative, a, p, place, slopes) -> TripletSums:
    """All triplets of the pairs of strip row a and column p, whose own strip row is `place`."""
    d_ap = d[a, p][:, None]
    d_an = d[a]
    if options.swap:
        swapped = d[place] < d_an
        d_an = np.where(swapped, d[place], d_an)
    loss, on_ap, on_an = triplet_rule(options.losstype, options.margin, d_ap, d_an)
    on_an = np.where(negative, on_an, 0)
    loss = np.where(negative, loss, 0)
    negatives = negative.sum(axis=1)
    along_ap = np.where(negative, on_ap, 0).sum(axis=1) + options.use_pair * negatives
    slopes[a, p] += along_ap.astype(slopes.dtype)
    if options.swap:
        add_rows(slopes, place, np.where(swapped, on_an, 0))
        on_an = np.where(swapped, 0, on_an)
    add_rows(slopes, a, on_an)
    pair_distance = float((d_ap[:, 0] * negatives).sum(dtype=np.float64))
    return TripletSums(
        loss=float(loss.sum(dtype=np.float64)) + options.use_pair * pair_distance,
        count=int(negatives.sum()),
        active=int(np.count_nonzero(loss > 0)),
    )


def _hinge(options, d, rows, labels, slopes) -> TripletSums:
    """HINGE without swap in O(N log K) an anchor, K its positives.

    The thresholds d_ap + margin are sorted, each negative is placed among them by binary search,
    and counts and sums over the places give the loss and its slopes.
    """
    count, n = d.shape
    same = labels[rows][:, None] == labels
    positive = same.copy()
    positive[np.arange(count), rows] = False
    row, p = np.nonzero(positive)
    positives = positive.sum(axis=1)
    negatives = n - same.sum(axis=1)
    most = int(positives.max(initial=0))
    if most == 0 or not negatives.any():
        return TripletSums()

    slot = np.arange(len(row)) - (np.cumsum(positives) - positives)[row]
    threshold = np.full((count, most), np.inf, d.dtype)
    threshold[row, slot] = d[row, p] + d.dtype.type(options.margin)
    order = np.argsort(threshold, axis=1, kind="stable")
    threshold = np.take_along_axis(threshold, order, axis=1)

    place = _places(threshold, d)  # how many thresholds are <= d
    place[same] = most  # above all thresholds: no hinge of theirs is active
    bins = (place + np.arange(count)[:, None] * (most + 1)).ravel()
    shape = (count, most + 1)
    below = np.bincount(bins, minlength=count * (most + 1)).reshape(shape)
    distance = np.bincount(bins, d.ravel(), minlength=count * (most + 1)).reshape(shape)
    below = below[:, :-1].cumsum(axis=1)  # negatives under each threshold
    distance = distance[:, :-1].cumsum(axis=1)

    real = np.isfinite(threshold)
    loss = np.where(real, below * np.where(real, threshold, 0).astype(np.float64) - distance, 0)
    below = np.where(real, below, 0)
    np.minimum(place - positives[:, None], 0, out=slopes, casting="unsafe")
    slopes[same] = 0
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(most)[None].repeat(count, 0), axis=1)
    slopes[row, p] = below[row, rank[row, slot]] + options.use_pair * negatives[row]
    d_ap = float((np.where(positive, d, 0).sum(axis=1, dtype=np.float64) * negatives).sum())
    return TripletSums(
        loss=float(loss.sum()) + options.use_pair * d_ap,
        count=int((positives * negatives).sum()),
        active=int(below.sum()),
    )


def _places(threshold: np.ndarray, d: np.ndarray) -> np.ndarray:
    """For each d of a row, how many of the row's sorted thresholds are <= d: binary search."""
    size = threshold.shape[1]
    low = np.zeros(d.shape, np.int64)
    step = 1 << size.bit_length() - 1
    while step:
        probe = low + step
        at = np.take_along_axis(threshold, np.minimum(probe, size) - 1, axis=1)
        low = np.where((probe <= size) & (at <= d), probe, low)
        step >>= 1
    return low
