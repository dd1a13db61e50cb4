"""Cutting an N x N matrix into strips of rows, and adding rows that repeat."""

from __future__ import annotations

import numpy as np

# Elements of a strip of an N x N matrix: 64 MB in float32, all of N = 4096.
STRIP = 1 << 24


def strips(n: int, rows=None):
    """The row numbers (0 ... n - 1, or `rows`), cut so that a strip of n columns fits in STRIP."""
    rows = np.arange(n) if rows is None else rows
    step = max(1, STRIP // max(1, n))
    return [rows[start : start + step] for start in range(0, len(rows), step)]


def add_rows(out, index, rows) -> None:
    """out[index_k] += rows_k, where an index may repeat.

    First what comes first at each index, then what comes second, and so on: additions of whole
    rows, which are several times as fast as np.add.at and np.add.reduceat.
    """
    order = np.argsort(index, kind="stable")
    number = np.arange(len(index))
    ordered = index[order]
    starts = np.r_[True, ordered[1:] != ordered[:-1]][: len(index)]
    turn = number - np.maximum.accumulate(np.where(starts, number, 0))
    turns = np.cumsum(np.bincount(turn))
    for part in np.split(order[np.argsort(turn, kind="stable")], turns[:-1]):
        out[index[part]] += rows[part]


def dense(shape, at, values):
    """A matrix that is 0 but for the sums of the values at the positions `at`."""
    flat = np.ravel_multi_index(at, shape)
    sums = np.bincount(flat, values, minlength=shape[0] * shape[1])
    return sums.reshape(shape).astype(values.dtype)
