"""Which negatives RankHardLoss takes."""

from __future__ import annotations

import numpy as np

from caffe_metric.rules.reference.random import draw, stream_of

LAST = np.iinfo(np.uint64).max


def rank_hard_select(products, anchors, labels, parameters, key: int):
    """The taken negatives of the batch rows `anchors`: pairs (row of `products`, column j).

    products    len(anchors) x N, of the anchors with all rows: u_i . u_j = -s(i,j)
    parameters  neg_num, hard_ratio, rand_ratio, margin of RankParameter

    Candidates are rows of other classes whose hinge is active. Up to neg_num of them: all are
    taken. More: floor(neg_num hard_ratio) are drawn from the neg_num with the smallest s (lowest
    index on a tie), then floor(neg_num rand_ratio) from those not drawn yet.
    """
    margin = products.dtype.type(parameters.margin)
    between = products[np.arange(len(anchors)), anchors + 1][:, None]
    candidate = labels[anchors][:, None] != labels
    candidate &= products - between + margin > 0
    neg_num = parameters.neg_num
    taken = candidate.copy()
    full = np.flatnonzero(candidate.sum(axis=1) > neg_num)
    if len(full) == 0:
        return np.nonzero(taken)
    # The products are rounded to float32, as in C++.
    hard_count = int(np.float32(neg_num) * np.float32(parameters.hard_ratio))
    rand_count = int(np.float32(neg_num) * np.float32(parameters.rand_ratio))
    candidate, anchors = candidate[full], anchors[full]
    hardest = _smallest(np.where(candidate, -products[full], np.inf), candidate, neg_num)
    columns = np.nonzero(hardest)[1].reshape(len(full), neg_num)
    drawn = _draw(np.ones_like(columns, bool), columns, hard_count, anchors, 0, key)
    hard = np.zeros_like(candidate)
    np.put_along_axis(hard, columns, drawn, axis=1)
    columns = np.arange(candidate.shape[1])
    rand = _draw(candidate & ~hard, columns, rand_count, anchors, 1, key)
    taken[full] = hard | rand
    return np.nonzero(taken)


def _smallest(values, allowed, count: int) -> np.ndarray:
    """A mask of the `count` smallest allowed values of each row, lowest index on a tie."""
    if count == 0:
        return np.zeros_like(allowed)
    if allowed.shape[1] <= count:
        return allowed.copy()
    last = np.partition(values, count - 1, axis=1)[:, count - 1, None]
    under = allowed & (values < last)
    tied = allowed & (values == last)
    room = count - np.count_nonzero(under, axis=1)
    if (np.count_nonzero(tied, axis=1) > room).any():
        tied &= tied.cumsum(axis=1) <= room[:, None]
    return under | tied


def _draw(allowed, columns, count: int, anchors, stream: int, key: int) -> np.ndarray:
    """A mask of `count` allowed columns of each row: those with the smallest numbers."""
    if count == 0:
        return np.zeros_like(allowed)
    number = draw(stream_of(key, anchors, stream)[:, None], columns)
    number[~allowed] = LAST
    return _smallest(number, allowed, count)
