"""Which triplets of a batch meet: SEMIHARD, VIOLATING and HARDEST mining."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from caffe_metric.rules.reference.random import draw, stream_of

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
    return Triplets(*(np.concatenate(column) for column in zip(*parts)))


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
