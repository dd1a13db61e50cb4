"""Retrieval, leave one out: each row asks all others, by cosine similarity.

Rows whose label nobody else has cannot be answered; they are no queries, but others may find them.
"""

from __future__ import annotations

import numpy as np

from caffe_metric.evaluation.metrics.similarity import similarity_blocks


def nearest(embeddings, count):
    """The `count` nearest other rows of each row, nearest first; ties by row number. int64 [N, k].

    k is `count`, or N - 1 where there are no more rows.
    """
    total = len(embeddings)
    count = min(count, max(total - 1, 0))
    found = np.empty((total, count), np.int64)
    for start, similarities in similarity_blocks(embeddings):
        found[start : start + len(similarities)] = _top(_without_self(start, similarities), count)
    return found


def _without_self(start, similarities):
    rows = np.arange(len(similarities))
    similarities[rows, start + rows] = -np.inf
    return similarities


def _top(similarities, count):
    """Columns of the `count` largest entries of each row, sorted; ties by column."""
    if not count:
        return np.empty((len(similarities), 0), np.int64)
    columns = similarities.shape[1]
    if count < columns:
        # argpartition may cut a tie anywhere, so rows with a tie at the cut are sorted whole.
        chosen = np.argpartition(-similarities, count - 1, axis=1)[:, :count]
        values = np.take_along_axis(similarities, chosen, 1)
        cut = values.min(axis=1, keepdims=True)
        tied = (similarities >= cut).sum(axis=1) > count
        chosen.sort(axis=1)
        values = np.take_along_axis(similarities, chosen, 1)
        order = np.argsort(-values, axis=1, kind="stable")
        chosen = np.take_along_axis(chosen, order, 1)
        whole = np.argsort(-similarities[tied], axis=1, kind="stable")[:, :count]
        chosen[tied] = whole
        return chosen
    return np.argsort(-similarities, axis=1, kind="stable")


def recall_at(embeddings, labels, ks=(1, 2, 4, 8)):
    """Recall at k: the fraction of queries with their label among the k nearest. {k: recall}.

    Raises ValueError where no row has a partner.
    """
    labels = np.asarray(labels)
    queries = _queries(labels)
    hits = labels[nearest(embeddings, max(ks))] == labels[:, None]
    return {k: float(hits[queries, :k].any(axis=1).mean()) for k in ks}


def map_at_r(embeddings, labels):
    """MAP@R and R-precision (Musgrave, Belongie and Lim 2020, section 3.2).

    Returns (MAP@R, R-precision). R of a query is the number of other rows with its label.
    R-precision is the fraction of right ones among its R nearest; MAP@R is 1/R times the sum over
    i = 1..R of precision at i where the i-th is right, else 0.
    """
    labels = np.asarray(labels)
    queries = _queries(labels)
    _, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    relevant = sizes[inverse] - 1
    average = np.zeros(len(labels))
    precision = np.zeros(len(labels))
    most = int(relevant.max())
    ranks = np.arange(1, most + 1)
    for start, similarities in similarity_blocks(embeddings, block=256):
        rows = slice(start, start + len(similarities))
        found = _top(_without_self(start, similarities), most)
        r = relevant[rows, None]
        hits = (labels[found] == labels[rows, None]) & (ranks <= r)
        r = np.maximum(r[:, 0], 1)
        precision[rows] = hits.sum(axis=1) / r
        average[rows] = (hits * (np.cumsum(hits, axis=1) / ranks)).sum(axis=1) / r
    return float(average[queries].mean()), float(precision[queries].mean())


def _queries(labels):
    _, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    queries = sizes[inverse] > 1
    if not queries.any():
        raise ValueError("retrieval needs an identity with two rows")
    return queries
