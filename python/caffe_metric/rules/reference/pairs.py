"""Gradients of sums over listed pairs of rows, as matrix products with strips of coefficients."""

from __future__ import annotations

import numpy as np

from caffe_metric.rules.reference.distance import LP
from caffe_metric.rules.reference.gram import GramDistances, GramGradient
from caffe_metric.rules.reference.strips import add_rows, dense, strips

# Elements of the rows that are gathered at a time.
BLOCK = 1 << 20
# Gathering the rows of a pair takes as long as so many elements of a strip in a matrix product.
PAIR = 200


def pair_sums(d, rows, labels) -> np.ndarray:
    """Of the anchors `rows`, whose distances are d (len(rows) x N), with all other rows:

    how many pairs are of one class, how many of two, and the sums of their distances.
    """
    same = labels[rows][:, None] == labels
    own = d[np.arange(len(rows)), rows].sum(dtype=np.float64)
    of_same = d.sum(where=same, dtype=np.float64) - own
    of_others = d.sum(where=~same, dtype=np.float64)
    count = np.count_nonzero(same)
    return np.array([count - len(rows), same.size - count, of_same, of_others])


def pairs_gradient(batch: GramDistances, u, v, d, w) -> np.ndarray:
    """The gradient (N x D) of sum_k w_k d(x_u_k, x_v_k), d_k those distances."""
    if batch.distance.kind == LP:
        return _by_rows(batch, u, v, d, w)
    gradient = GramGradient(batch)
    for rows, at, part in _strips_of_pairs(len(batch.x), u, v):
        weights = dense((len(rows), len(batch.x)), at, w[part])
        distances = np.zeros_like(weights)
        distances[at] = d[part]
        gradient.add(rows, distances, weights)
    return gradient.result()


def products_gradient(x, u, v, w) -> np.ndarray:
    """The gradient (N x D) of sum_k w_k x_u_k . x_v_k."""
    gradient = np.zeros_like(x)
    if PAIR * len(u) < len(x) ** 2:
        for block in _blocks(len(u), x.shape[1]):
            rows, columns, weights = u[block], v[block], w[block, None]
            add_rows(gradient, rows, weights * x[columns])
            add_rows(gradient, columns, weights * x[rows])
        return gradient
    for rows, at, part in _strips_of_pairs(len(x), u, v):
        weights = dense((len(rows), len(x)), at, w[part])
        if len(rows) == len(x):
            return (weights + weights.T) @ x
        gradient[rows] += weights @ x
        gradient += weights.T @ x[rows]
    return gradient


def pair_products(x, u, v) -> np.ndarray:
    """x_u_k . x_v_k for each k."""
    out = np.empty(len(u), x.dtype)
    for block in _blocks(len(u), x.shape[1]):
        out[block] = np.einsum("kd,kd->k", x[u[block]], x[v[block]])
    return out


def _blocks(count, dim):
    """Slices of the pairs whose rows are gathered at a time."""
    step = max(1, BLOCK // max(1, dim))
    return [slice(start, start + step) for start in range(0, count, step)]


def _strips_of_pairs(n, u, v):
    """For each strip of u's rows: the rows, the positions in the strip, which pairs they are."""
    order = np.argsort(u, kind="stable")
    sorted_u = u[order]
    for rows in strips(n, np.unique(u)):
        low = np.searchsorted(sorted_u, rows[0])
        high = np.searchsorted(sorted_u, rows[-1], side="right")
        part = order[low:high]
        yield rows, (np.searchsorted(rows, u[part]), v[part]), part


def _by_rows(batch, u, v, d, w):
    x = batch.x
    gradient = np.zeros_like(x)
    for block in _blocks(len(u), x.shape[1]):
        du, dv = batch.distance.row_gradients(x[u[block]], x[v[block]], d[block], w[block])
        add_rows(gradient, u[block], du)
        add_rows(gradient, v[block], dv)
    return gradient
