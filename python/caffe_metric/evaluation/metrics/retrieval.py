"""Retrieval, leave one out: each row asks all others, by cosine similarity.

Rows whose label nobody else has cannot be answered; they are no queries, but others may find them.
Of more than EXACT_ROWS rows, QUERIES drawn at random ask all others.
"""

from __future__ import annotations

import numpy as np

from caffe_metric.evaluation.metrics.neighbours import EXACT_ROWS, neighbour_blocks

QUERIES = 20_000


def retrieve(unit, labels, ks=(1, 2, 4, 8)):
    """Recall at k, MAP@R and R-precision of unit rows, as a dict.

    recall_at    {k: recall}: the fraction of queries with their label among the k nearest, for
                 those k that leave a row out
    map_at_r     (Musgrave, Belongie and Lim 2020, section 3.2) R of a query is the number of other
                 rows with its label; 1/R times the sum over i = 1..R of precision at i where the
                 i-th is right, else 0
    r_precision  the fraction of right ones among a query's R nearest
    queries      how many rows asked, of_queries: of so many that could

    Raises ValueError where no row has a partner.
    """
    _, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(-1).astype(np.int32)
    relevant = sizes[inverse] - 1
    if not relevant.any():
        raise ValueError("retrieval needs an identity with two rows")
    ks = [k for k in ks if k < len(unit) - 1]
    most = max([int(relevant.max()), *ks])
    ranks = np.arange(1, most + 1)
    recalled, average, precision = np.zeros(len(ks)), 0.0, 0.0
    could = np.flatnonzero(relevant)
    queries = could
    if len(unit) > EXACT_ROWS:
        queries = np.sort(np.random.default_rng(0).permutation(could)[:QUERIES])
    for rows, found in neighbour_blocks(unit, most, queries):
        r = relevant[rows, None]
        hits = inverse[found] == inverse[rows, None]
        recalled += [np.count_nonzero(hits[:, :k].any(axis=1)) for k in ks]
        hits &= ranks <= r
        precision += float((hits.sum(axis=1) / r[:, 0]).sum())
        average += float(((hits * (np.cumsum(hits, axis=1) / ranks)).sum(axis=1) / r[:, 0]).sum())
    return {
        "recall_at": {k: float(count / len(queries)) for k, count in zip(ks, recalled)},
        "map_at_r": average / len(queries),
        "r_precision": precision / len(queries),
        "queries": len(queries),
        "of_queries": len(could),
    }
