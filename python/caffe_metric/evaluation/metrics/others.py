"""Nearest neighbours of other classes, a block of rows at a time.

A class may have more rows than neighbours are asked for: its own rows are left out of the search.
"""

from __future__ import annotations

import importlib.util

import numpy as np

from caffe_metric.evaluation.metrics import neighbours
from caffe_metric.evaluation.metrics.similarity import similarity_blocks

# Rows found beyond those asked for, that own ones are left out of; more is slower than a search
# for each class, which leaves them out by itself.
MOST_BEYOND = 512
_QUERIES = 4096


def other_blocks(unit, starts, count):
    """Yields (first row, int64 [<= block, count]): the nearest rows of other classes.

    Nearest first, -1 where there are fewer. unit: float32 [N, D], the rows of a class side by side;
    starts: int [C + 1], where each class begins, and N. By FAISS where it is installed and pays,
    exactly or in the nearest clusters; else by products.
    """
    if len(unit) > neighbours.SMALL and importlib.util.find_spec("faiss"):
        yield from _by_faiss(unit, starts, count)
        return
    for first, similarities in similarity_blocks(unit, 256):
        last = first + len(similarities)
        for begin, end in _classes(starts, first, last):
            similarities[max(begin, first) - first : min(end, last) - first, begin:end] = -np.inf
        found = neighbours.top(similarities, min(count, len(unit)))
        values = np.take_along_axis(similarities, found, 1)
        yield first, _widened(np.where(np.isneginf(values), -1, found), count)


def _by_faiss(unit, starts, count):
    import faiss

    exact = neighbours.is_exact(len(unit))
    if exact:
        index = faiss.IndexFlatIP(unit.shape[1])
        index.add(unit)
    else:
        index = neighbours.cluster_index(unit)
    first = 0
    while first < len(unit):
        begin, end = next(_classes(starts, first, first + 1))
        if end - begin > MOST_BEYOND:
            last = min(end, first + _QUERIES)
            own = faiss.IDSelectorNot(faiss.IDSelectorRange(begin, end))
            asked = {"nprobe": neighbours.PROBES} if not exact else {}
            kind = faiss.SearchParameters if exact else faiss.SearchParametersIVF
            most = min(count, len(unit))
            _, found = index.search(unit[first:last], most, params=kind(sel=own, **asked))
        else:
            last = _end_of_small(starts, first)
            beyond = max(end - begin for begin, end in _classes(starts, first, last))
            _, found = index.search(unit[first:last], min(count + beyond, len(unit)))
            found = _without_own(found, starts, first, count)
        yield first, _widened(found, count)
        first = last


def _end_of_small(starts, first):
    """Where a block of small classes ends."""
    last = first
    for _, end in _classes(starts, first, min(first + _QUERIES, int(starts[-1]))):
        begin = last
        if end - begin > MOST_BEYOND:
            break
        last = min(end, first + _QUERIES)
    return last


def _without_own(found, starts, first, count):
    rows = np.arange(first, first + len(found))
    places = np.searchsorted(starts, rows, side="right") - 1
    own = (found >= starts[places][:, None]) & (found < starts[places + 1][:, None])
    # Those that are left, in their order; -1 for what is missing.
    order = np.argsort(own | (found < 0), axis=1, kind="stable")[:, :count]
    kept = np.take_along_axis(found, order, 1)
    return np.where(np.take_along_axis(own, order, 1), -1, kept)


def _classes(starts, first, last):
    """(begin, end) of the classes of some rows."""
    one = int(np.searchsorted(starts, first, side="right")) - 1
    while one < len(starts) - 1 and starts[one] < last:
        yield int(starts[one]), int(starts[one + 1])
        one += 1


def _widened(found, count):
    missing = count - found.shape[1]
    return np.pad(found, ((0, 0), (0, missing)), constant_values=-1) if missing > 0 else found
