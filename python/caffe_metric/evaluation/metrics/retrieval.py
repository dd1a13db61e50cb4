"""Retrieval, leave one out: each row asks all others, by cosine similarity.

Rows whose label nobody else has cannot be answered; they are no queries, but others may find them.
"""

from __future__ import annotations

import numpy as np

from caffe_metric.evaluation.metrics.neighbours import is_exact, neighbour_blocks


def retrieve(unit, labels, ks=(1, 2, 4, 8)):
    """Recall at k, MAP@R and R-precision of unit rows, as a dict.

    recall_at    {k: recall}: the fraction of queries with their label among the k nearest, for
                 those k that leave a row out
    map_at_r     (Musgrave, Belongie and Lim 2020, section 3.2) R of a query is the number of other
                 rows with its label; 1/R times the sum over i = 1..R of precision at i where the
                 i-th is right, else 0
    r_precision  the fraction of right ones among a query's R nearest
    exact        whether the neighbours are the nearest ones for certain

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
    for start, found in neighbour_blocks(unit, most):
        rows = slice(start, start + len(found))
        queries = relevant[rows] > 0
        r = relevant[rows][queries, None]
        hits = inverse[found[queries]] == inverse[rows][queries, None]
        recalled += [np.count_nonzero(hits[:, :k].any(axis=1)) for k in ks]
        hits &= ranks <= r
        precision += float((hits.sum(axis=1) / r[:, 0]).sum())
        average += float(((hits * (np.cumsum(hits, axis=1) / ranks)).sum(axis=1) / r[:, 0]).sum())
    asked = np.count_nonzero(relevant)
    return {
        "recall_at": {k: float(count / asked) for k, count in zip(ks, recalled)},
        "map_at_r": average / asked,
        "r_precision": precision / asked,
        "exact": is_exact(len(unit)),
    }
