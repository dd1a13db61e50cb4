"""Nearest neighbours of unit rows, a block of rows at a time.

By FAISS where it is installed and pays; else by matrix products and a partial sort.
"""

from __future__ import annotations

import importlib.util

import numpy as np

from caffe_metric.evaluation.metrics.similarity import BLOCK

EXACT_ROWS = 100_000  # up to which all rows ask all others
SMALL = 20_000  # rows up to which the products alone are fast
FEW = 256  # neighbours up to which FAISS's heap is fast
_QUERIES = 4096
_TRAINING = 200_000
PROBES = 32


def is_exact(rows: int) -> bool:
    """Whether so many rows are all searched; more of them by FAISS in clusters, approximately."""
    return rows <= EXACT_ROWS or not importlib.util.find_spec("faiss")


def neighbour_blocks(unit, count, queries=None):
    """Yields (rows, int64 [<= block, k]): the nearest other rows of each, nearest first.

    queries: the rows that ask, all without it. k is `count`, or N - 1 where there are no more rows.
    The search is exact; ties go by row number without FAISS.
    """
    count = min(count, max(len(unit) - 1, 0))
    queries = np.arange(len(unit)) if queries is None else queries
    fast = len(unit) > SMALL and 0 < count <= FEW and importlib.util.find_spec("faiss")
    search = _by_faiss if fast else _by_products
    block = _QUERIES if fast else 256 if count > FEW else BLOCK
    for start in range(0, len(queries), block):
        rows = queries[start : start + block]
        yield rows, search(unit, rows, count)


def nearest_rows(unit, count):
    """The same of all rows, int64 [N, min(count, N - 1)]; approximately above EXACT_ROWS."""
    if not is_exact(len(unit)):
        return np.concatenate(list(_by_clusters(unit, min(count, len(unit) - 1))))
    found = [block for _, block in neighbour_blocks(unit, count)]
    return np.concatenate(found) if found else np.empty((0, 0), np.int64)


def _by_products(unit, rows, count):
    similarities = unit[rows] @ unit.T
    similarities[np.arange(len(rows)), rows] = -np.inf
    return top(similarities, count)


def top(similarities, count):
    """Columns of the `count` largest entries of each row, sorted; ties by column."""
    if not count:
        return np.empty((len(similarities), 0), np.int64)
    if count >= similarities.shape[1]:
        return np.argsort(-similarities, axis=1, kind="stable")
    # argpartition may cut a tie anywhere, so rows with a tie at the cut are sorted whole.
    chosen = np.argpartition(-similarities, count - 1, axis=1)[:, :count]
    values = np.take_along_axis(similarities, chosen, 1)
    cut = values.min(axis=1, keepdims=True)
    tied = (similarities >= cut).sum(axis=1) > count
    chosen.sort(axis=1)
    values = np.take_along_axis(similarities, chosen, 1)
    order = np.argsort(-values, axis=1, kind="stable")
    chosen = np.take_along_axis(chosen, order, 1)
    chosen[tied] = np.argsort(-similarities[tied], axis=1, kind="stable")[:, :count]
    return chosen


def _by_faiss(unit, rows, count):
    import faiss

    unit = np.ascontiguousarray(unit, np.float32)
    _, found = faiss.knn(unit[rows], unit, count + 1, faiss.METRIC_INNER_PRODUCT)
    return _without_self(rows, found, count)


def cluster_index(unit):
    """FAISS's inverted file of 8-bit numbers, over rows float32 [N, D]."""
    import faiss

    lists = int(4 * np.sqrt(len(unit)))
    quantizer = faiss.IndexFlatIP(unit.shape[1])
    index = faiss.IndexIVFScalarQuantizer(
        quantizer,
        unit.shape[1],
        lists,
        faiss.ScalarQuantizer.QT_8bit,
        faiss.METRIC_INNER_PRODUCT,
    )
    chosen = np.random.default_rng(0).permutation(len(unit))[:_TRAINING]
    index.train(unit[np.sort(chosen)])
    for start in range(0, len(unit), 1 << 16):
        index.add(unit[start : start + (1 << 16)])
    index.nprobe = PROBES
    return index


def _by_clusters(unit, count):
    """An inverted file of 8-bit numbers; the candidates are put in order by the rows themselves."""
    unit = np.ascontiguousarray(unit, np.float32)
    index = cluster_index(unit)
    for start in range(0, len(unit), _QUERIES):
        queries = unit[start : start + _QUERIES]
        _, found = index.search(queries, count + 1 + count // 4)
        for part in range(0, len(found), 64):
            rows = slice(part, part + 64)
            values = np.einsum("qd,qkd->qk", queries[rows], unit[found[rows]])
            values[found[rows] < 0] = -np.inf
            order = np.argsort(-values, axis=1, kind="stable")
            found[rows] = np.take_along_axis(found[rows], order, 1)
        rows = np.arange(start, start + len(found))
        yield _without_self(rows, found[:, : count + 1], count)


def _without_self(rows, found, count):
    # A row finds itself, though not always first among equals; the last goes where it does not.
    itself = found == rows[:, None]
    itself[~itself.any(axis=1), -1] = True
    found = found[~itself].reshape(len(found), count)
    # Clusters may hold fewer: the rest is filled with the nearest.
    return np.where(found < 0, found[:, :1], found)
