"""All distances of a batch by matrix products, a strip of rows at a time, and their gradient.

With u the prepared rows and G = u u^T their Gram matrix (include/caffe_metric/gram.hpp):

    SQUARED_L2  d_ij = G_ii + G_jj - 2 G_ij      u = x - mean of the batch
    L2          its square root                  the same
    UNIT_L2     the same of unit rows            u = x' - mean of x', x' = x / ||x||, or 0
    COSINE      d_ij = 1 - G_ij                  u = x'
    SIMILARITY  d_ij = G_ij                      u = x'

Distances that cancellation has robbed of their digits are computed from the rows. LP has no such
form: its distances are sums over the elements.
"""

from __future__ import annotations

import numpy as np

from caffe_metric.rules.reference.distance import (
    COSINE,
    L2,
    LP,
    SIMILARITY,
    SQUARED_L2,
    UNIT_L2,
    Distance,
    divide,
    row_norms,
)

# Elements of the largest intermediate array that is not a strip.
BLOCK = 1 << 20


class GramDistances:
    """The distances of the rows of one batch x (N x D)."""

    def __init__(self, distance: Distance, x: np.ndarray):
        self.distance, self.x = distance, x
        self.u = x
        if distance.kind in (COSINE, SIMILARITY, UNIT_L2):
            self.norms = row_norms(x)
            self.u = self.unit = divide(x, self.norms[:, None])
        if distance.kind in (SQUARED_L2, L2, UNIT_L2):
            self.u = (self.u - self.u.mean(axis=0, dtype=np.float64)).astype(x.dtype)
            self.squares = np.einsum("nd,nd->n", self.u, self.u)

    def strip(self, rows: np.ndarray, first: int = 0) -> np.ndarray:
        """d(x_i, x_j) for i in rows and every j from `first` on, of shape (len(rows), ...)."""
        kind = self.distance.kind
        if kind == LP:
            return self._by_rows(rows)
        others = self.u[first:]
        d = self.u[rows] @ others.T
        if kind == SIMILARITY:
            return d
        if kind == COSINE:
            return np.subtract(1, d, out=d)
        d *= -2
        sums = self.squares[rows, None] + self.squares[first:]
        d += sums
        sums *= d.dtype.type(0.01)
        i, j = np.nonzero(~(d > sums))
        step = max(1, BLOCK // max(1, self.u.shape[1]))
        for start in range(0, len(i), step):
            block = slice(start, start + step)
            difference = self.u[rows[i[block]]] - others[j[block]]
            d[i[block], j[block]] = np.einsum("nd,nd->n", difference, difference)
        return d if kind == SQUARED_L2 else np.sqrt(d, out=d)

    def _by_rows(self, rows):
        d = np.empty((len(rows), len(self.x)), self.x.dtype)
        step = max(1, BLOCK // max(1, self.x.size))
        for start in range(0, len(rows), step):
            block = self.x[rows[start : start + step], None]
            d[start : start + step] = self.distance.rows(block, self.x[None])
        return d


class GramGradient:
    """The gradient of sum_ij w_ij d_ij, collected strip by strip.

    With v_ij = 2 w_ij for SQUARED_L2, w_ij / d_ij for L2, w_ij for COSINE, -w_ij for SIMILARITY,
    S = v + v^T and g = -sum_j S_ij u_j:

        SQUARED_L2, L2      dL/dx_i = h = (sum_j S_ij) u_i + g
        UNIT_L2             dL/dx_i = (h - (h . x'_i) x'_i) / ||x_i||
        COSINE, SIMILARITY  the same with h = g
    """

    def __init__(self, batch: GramDistances):
        self.batch = batch
        self.gradient = np.zeros_like(batch.u)  # -sum_j S_ij u_j; LP: the gradient itself
        self.sums = np.zeros(len(batch.u), batch.u.dtype)  # sum_j S_ij

    def add(self, rows, d, w) -> None:
        """Adds the terms of a strip: d and w of shape (len(rows), N), rows without duplicates.

        May overwrite w.
        """
        if self.batch.distance.kind == LP:
            self._add_by_rows(rows, d, w)
        else:
            self.add_weights(rows, self.weights(d, w))

    def add_weights(self, rows, v, first: int = 0, end: int | None = None) -> None:
        """Adds a strip of v, whose columns begin at row `first`; rows from `end` on get none.

        May overwrite v.
        """
        u = self.batch.u
        if first:
            self.gradient[rows] -= v @ u[first:]
            self.gradient[first:] -= v.T @ u[rows]
            self.sums[rows] += v.sum(axis=1)
            self.sums[first:] += v.sum(axis=0)
            return
        if end is not None and end < len(u):
            self.gradient[rows] -= v @ u
            self.gradient[:end] -= v[:, :end].T @ u[rows]
            self.sums[rows] += v.sum(axis=1)
            self.sums[:end] += v[:, :end].sum(axis=0)
            return
        if np.array_equal(rows, np.arange(len(u))):  # all of the matrix: one product serves
            v = self.with_transpose(v)
            self.gradient -= v @ u
            self.sums += v.sum(axis=1)
            return
        self.gradient[rows] -= v @ u
        self.gradient -= v.T @ u[rows]
        self.sums[rows] += v.sum(axis=1)
        self.sums += v.sum(axis=0)

    def weights(self, d, w):
        """v of w."""
        if self.batch.distance.kind == SQUARED_L2:
            w *= 2
        elif self.batch.distance.kind in (L2, UNIT_L2):
            w = divide(w, d)
        elif self.batch.distance.kind == SIMILARITY:
            np.negative(w, out=w)
        return w

    def with_transpose(self, v):
        """v + v^T of a square matrix."""
        return v + v.T

    def _add_by_rows(self, rows, d, w):
        x = self.batch.x
        step = max(1, BLOCK // max(1, x.size))
        for start in range(0, len(rows), step):
            block = slice(start, start + step)
            slopes, _ = self.batch.distance.row_gradients(
                x[rows[block], None], x[None], d[block], w[block]
            )
            self.gradient[rows[block]] += slopes.sum(axis=1)
            self.gradient -= slopes.sum(axis=0)

    def result(self) -> np.ndarray:
        """The gradient, N x D. Called once."""
        kind, u, g = self.batch.distance.kind, self.batch.u, self.gradient
        if kind == LP:
            return g
        if kind not in (COSINE, SIMILARITY):
            g += self.sums[:, None] * u
        if kind in (SQUARED_L2, L2):
            return g
        unit = self.batch.unit
        g -= np.einsum("nd,nd->n", g, unit)[:, None] * unit
        return divide(g, self.batch.norms[:, None])
