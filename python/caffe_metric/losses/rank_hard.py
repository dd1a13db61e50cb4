"""RankHardLoss: hinges on the negatives of hard and random rank, in rows of groups.

Anchors i = 0, P, 2P ..., positives i + 1, s(u, v) = -u . v, and for each taken negative j

    max(0, s(i,i+1) - s(i,j) + margin) + max(0, s(i,i+1) - s(i+1,j) + margin)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from caffe_metric.rules.reference.strips import strips


@dataclass
class RankSums:
    """Sums over the taken negatives: loss, hinge terms (two a negative), those > 0."""

    loss: float
    count: int
    active: int

    def normalizer(self, mode, parameters, groups: int) -> float:
        """Z: neg_num x groups x 2 where the mode is None."""
        return {
            None: parameters.neg_num * groups * 2,
            "FULL": max(self.count, 1),
            "VALID": max(self.active, 1),
            "BATCH_SIZE": max(groups, 1),
            "NONE": 1,
        }[mode]


def rank_hard(parameters, x, labels, key: int, backend):
    """The sums over a batch, and a function that gives the gradient of the sum of losses, N x D.

    parameters  the fields of RankParameter
    x           N x D features, C-contiguous, N a multiple of pair_size
    labels      N, of the type of x

    Raises ValueError where a product of two rows is not finite.
    """
    _check_products(x)
    columns = ([], [], [], [])
    loss = 0.0
    for anchors in strips(len(x), np.arange(0, len(x), parameters.pair_size)):
        to_anchor = x[anchors] @ x.T
        between = to_anchor[np.arange(len(anchors)), anchors + 1]
        row, j = backend.rank_hard_select(to_anchor, anchors, labels, parameters, key)
        margin = x.dtype.type(parameters.margin)
        first = to_anchor[row, j] - between[row] + margin
        second = backend.pair_products(x, anchors[row] + 1, j) - between[row] + margin
        loss += float((np.maximum(first, 0) + np.maximum(second, 0)).sum(dtype=np.float64))
        for column, part in zip(columns, (anchors[row], j, first > 0, second > 0)):
            column.append(part)
    i, j, first, second = (np.concatenate(column) for column in columns)
    sums = RankSums(loss, 2 * len(i), int(np.count_nonzero(first) + np.count_nonzero(second)))

    def gradient():
        return _gradient(x, i, j, first, second, backend)

    return sums, gradient


def _check_products(x) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        # No product of two rows is above the greatest square of one.
        if np.isfinite(np.einsum("nd,nd->n", x, x)).all():
            return
        for rows in strips(len(x)):
            products = x[rows] @ x.T
            products[np.arange(len(rows)), rows] = 0  # a row does not meet itself
            if not np.isfinite(products).all():
                raise ValueError(
                    "the features are too large: a product of two rows is beyond the largest number"
                )


def _gradient(x, i, j, first, second, backend):
    """Each active hinge adds -x_i . x_i+1, and x_i . x_j or x_i+1 . x_j, to the sum."""
    hinges = first.astype(x.dtype) + second
    anchors, start = np.unique(i, return_index=True)
    between = -np.add.reduceat(hinges, start) if len(i) else hinges
    u = np.r_[i[first], i[second] + 1, anchors]
    v = np.r_[j[first], j[second], anchors + 1]
    weights = np.r_[np.ones(len(u) - len(anchors), x.dtype), between].astype(x.dtype)
    return backend.products_gradient(x, u, v, weights)
