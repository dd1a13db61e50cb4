"""Nearest neighbours of many rows: by FAISS where it is installed, else by an exact search."""

from __future__ import annotations

import importlib.util

import numpy as np

from caffe_metric.evaluation.metrics.retrieval import nearest

EXACT_ROWS = 200_000  # FAISS searches more rows through a graph, approximately


def nearest_rows(unit, count):
    """The `count` nearest other rows of each row of unit vectors, int64 [N, min(count, N - 1)]."""
    count = min(count, max(len(unit) - 1, 0))
    if count and importlib.util.find_spec("faiss"):
        return _by_faiss(unit, count)
    return nearest(unit, count)


def _by_faiss(unit, count):
    import faiss

    unit = np.ascontiguousarray(unit, np.float32)
    if len(unit) <= EXACT_ROWS:
        index = faiss.IndexFlatIP(unit.shape[1])
    else:
        index = faiss.IndexHNSWFlat(unit.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    index.add(unit)
    _, found = index.search(unit, count + 1)
    # A row finds itself, though not always first among equals; the last goes where it does not.
    rows = np.arange(len(unit))[:, None]
    itself = found == rows
    itself[~itself.any(axis=1), -1] = True
    found = found[~itself].reshape(len(unit), count)
    # A graph may find fewer: the rest is filled with the nearest.
    return np.where(found < 0, found[:, :1], found)
