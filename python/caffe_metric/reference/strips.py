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
    """out[index_k] += rows_k, where an index may repeat."""
    if len(index) == 0:
        return
    order = np.argsort(index, kind="stable")
    index = index[order]
    start = np.flatnonzero(np.r_[True, index[1:] != index[:-1]])
    out[index[start]] += np.add.reduceat(rows[order], start, axis=0)


def dense(shape, at, values):
    """A matrix that is 0 but for the sums of the values at the positions `at`."""
    flat = np.ravel_multi_index(at, shape)
    sums = np.bincount(flat, values, minlength=shape[0] * shape[1])
    return sums.reshape(shape).astype(values.dtype)
