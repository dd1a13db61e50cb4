"""Which triplets of a batch meet: SEMIHARD, VIOLATING and HARDEST mining, and the sums of ALL."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from caffe_metric.reference.random import draw, stream_of

# Elements of the largest intermediate array.
BLOCK = 1 << 20


class Triplets(NamedTuple):
    """Row numbers of the batch, one of each a triplet, ordered by anchor and positive."""

    anchor: np.ndarray
    positive: np.ndarray
    negative: np.ndarray


def mine(mining: str, d, rows, labels, margin: float, key: int) -> Triplets:
    """The triplets whose anchors are the batch's `rows`; d is len(rows) x N, their distances.

    SEMIHARD   one n drawn at random from d_ap < d_an < d_ap + margin, for each (a, p)
    VIOLATING  one n drawn at random from d_an < d_ap + margin, for each (a, p)
    HARDEST    one triplet an anchor: farthest positive, closest negative, lowest index on a tie
    """
    same = labels[rows][:, None] == labels
    positive = same.copy()
    positive[np.arange(len(rows)), rows] = False
    if mining == "HARDEST":
        return _hardest(d, rows, positive, ~same)
    pair_row, pair_positive = np.nonzero(positive)
    parts = []
    step = max(1, BLOCK // max(1, d.shape[1]))
    for start in range(0, len(pair_row), step):
        row, p = pair_row[start : start + step], pair_positive[start : start + step]
        parts.append(_drawn(mining, d, rows, ~same, row, p, margin, key))
    if not parts:
        empty = np.empty(0, np.int64)
        return Triplets(empty, empty, empty)
    return Triplets(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _hardest(d, rows, positive, negative) -> Triplets:
    """argmax and argmin take the lowest index on a tie."""
    chosen = np.flatnonzero(positive.any(axis=1) & negative.any(axis=1))
    farthest = np.where(positive[chosen], d[chosen], -np.inf).argmax(axis=1)
    closest = np.where(negative[chosen], d[chosen], np.inf).argmin(axis=1)
    return Triplets(rows[chosen], farthest, closest)


def _drawn(mining, d, rows, negative, row, p, margin, key) -> Triplets:
    """For each pair (rows[row], p) the candidate with the smallest number of the pair's stream."""
    d_ap = d[row, p][:, None]
    d_an = d[row]
    candidate = negative[row] & (d_an < d_ap + d.dtype.type(margin))
    if mining == "SEMIHARD":
        candidate &= d_an > d_ap
    pair, n = np.nonzero(candidate)
    if len(pair) == 0:
        empty = np.empty(0, np.int64)
        return Triplets(empty, empty, empty)
    number = draw(stream_of(key, rows[row], p)[pair], n)
    start = np.flatnonzero(np.r_[True, pair[1:] != pair[:-1]])
    smallest = np.minimum.reduceat(number, start)
    count = np.diff(np.r_[start, len(pair)])
    hit = np.flatnonzero(number == np.repeat(smallest, count))
    hit = hit[np.r_[True, pair[hit][1:] != pair[hit][:-1]]]  # the first of equal numbers
    return Triplets(rows[row[pair[hit]]], p[pair[hit]], n[hit])


class Sums(NamedTuple):
    """Sums over all triplets of some anchors: the loss, counts, and distances."""

    loss: float
    active: int
    count: int
    d_ap: float
    d_an: float


def all_hinge(d, rows, labels, margin: float) -> tuple[Sums, np.ndarray]:
    """HINGE over every triplet of the anchors `rows`, without swap.

    Returns the sums and the derivative of the loss with respect to d, of d's shape. O(N log K) an
    anchor, K its positives: the thresholds d_ap + margin are sorted, each negative placed among
    them by binary search, counts and sums over the places summed up.
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
        return Sums(0.0, 0, 0, 0.0, 0.0), np.zeros_like(d)

    slot = np.arange(len(row)) - (np.cumsum(positives) - positives)[row]
    threshold = np.full((count, most), np.inf, d.dtype)
    threshold[row, slot] = d[row, p] + d.dtype.type(margin)
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
    slope = np.minimum(place - positives[:, None], 0).astype(d.dtype)
    slope[same] = 0
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(most)[None].repeat(count, 0), axis=1)
    slope[row, p] = below[row, rank[row, slot]]
    triplets = positives * negatives
    sums = Sums(
        float(loss.sum()),
        int(below.sum()),
        int(triplets.sum()),
        float((np.where(positive, d, 0).sum(axis=1, dtype=np.float64) * negatives).sum()),
        float((np.where(same, 0, d).sum(axis=1, dtype=np.float64) * positives).sum()),
    )
    return sums, slope


def _places(threshold: np.ndarray, d: np.ndarray) -> np.ndarray:
    """For each d of a row, how many of the row's sorted thresholds are <= d: binary search."""
    low = np.zeros(d.shape, np.int64)
    size = threshold.shape[1]
    step = 1 << size.bit_length() - 1
    while step:
        probe = low + step
        at = np.take_along_axis(threshold, np.minimum(probe, size) - 1, axis=1)
        low = np.where((probe <= size) & (at <= d), probe, low)
        step >>= 1
    return low
