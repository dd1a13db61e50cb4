"""Distances of rows, and the gradient of sums of them.

d(u, v) by name:

    SQUARED_L2   ||u - v||^2
    L2           ||u - v||
    LP           (sum_k |u_k - v_k + eps|^p)^(1/p), as torch.nn.functional.pairwise_distance
    COSINE       1 - cos(u, v); the cosine of a zero vector is 0

L2 and LP at distance 0 and COSINE of a zero vector have zero gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SQUARED_L2, L2, LP, COSINE = "SQUARED_L2", "L2", "LP", "COSINE"
# Of the losses over all pairs of a batch: the L2 distance of rows of length 1, and the cosine.
UNIT_L2, SIMILARITY = "UNIT_L2", "SIMILARITY"

# Sums of float32 squares above it have lost no digit to numbers that are too small.
SMALLEST_SQUARE = 1e-30


@dataclass(frozen=True)
class Distance:
    """A distance: its name, and p and eps for LP. Rows are the last axes of u and v."""

    kind: str = SQUARED_L2
    p: float = 2.0
    eps: float = 1e-6

    def rows(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """d of the last axes of u and v."""
        if self.kind == COSINE:
            return 1 - np.einsum("...d,...d->...", unit_rows(u), unit_rows(v))
        difference = u - v
        if self.kind == LP:
            return self._p_norm(difference + u.dtype.type(self.eps))
        squared = np.einsum("...d,...d->...", difference, difference)
        return squared if self.kind == SQUARED_L2 else np.sqrt(squared)

    def row_gradients(self, u, v, d, coefficient):
        """coefficient * d's gradients with respect to u and v, in the broadcast shape."""
        if self.kind == COSINE:
            return self._cosine_gradients(u, v, d, coefficient)
        difference = u - v
        if self.kind == SQUARED_L2:
            difference *= (2 * coefficient)[..., None]
        elif self.kind == L2:
            difference *= divide(coefficient, d)[..., None]
        else:
            difference += u.dtype.type(self.eps)
            difference = self._p_norm_gradient(difference, d, coefficient)
        return difference, -difference

    @staticmethod
    def _cosine_gradients(u, v, d, coefficient):
        norm_u, norm_v = row_norms(u)[..., None], row_norms(v)[..., None]
        unit_u, unit_v = divide(u, norm_u), divide(v, norm_v)
        cosine = (1 - d)[..., None]
        defined = np.where((norm_u > 0) & (norm_v > 0), coefficient[..., None], 0)
        du = divide(defined, norm_u) * (cosine * unit_u - unit_v)
        dv = divide(defined, norm_v) * (cosine * unit_v - unit_u)
        return du, dv

    def _p_norm(self, difference):
        np.abs(difference, out=difference)
        if np.isinf(self.p):
            return difference.max(axis=-1)
        # The largest element stands before the sum, so that no power overflows.
        largest = difference.max(axis=-1)
        difference /= np.where(largest > 0, largest, 1)[..., None]
        sums = np.power(difference, difference.dtype.type(self.p)).sum(axis=-1)
        return largest * np.power(sums, difference.dtype.type(1 / self.p))

    def _p_norm_gradient(self, difference, d, coefficient):
        ratio = divide(np.abs(difference), d[..., None])
        with np.errstate(divide="ignore"):
            slope = np.power(ratio, difference.dtype.type(self.p - 1))
        slope[ratio == 0] = 0  # no gradient at the kink of |x|^p, where p <= 1
        return np.sign(difference) * slope * coefficient[..., None]


def row_norms(x: np.ndarray) -> np.ndarray:
    """||x|| over the last axis; in float64 where the squares of float32 overflow, or vanish."""
    with np.errstate(over="ignore"):
        squares = np.einsum("...d,...d->...", x, x)
    bad = ~((squares > SMALLEST_SQUARE) & (squares < np.inf))
    norms = np.sqrt(squares)
    if x.dtype == np.float32 and bad.any():
        norms[bad] = np.sqrt(np.einsum("...d,...d->...", x[bad], x[bad], dtype=np.float64))
    return norms


def unit_rows(x: np.ndarray) -> np.ndarray:
    """x over its norms; zero rows stay zero."""
    return divide(x, row_norms(x)[..., None])


def divide(numerator, denominator):
    """numerator / denominator, and 0 where the denominator is 0."""
    shape = np.broadcast(numerator, denominator).shape
    out = np.zeros(shape, np.result_type(numerator, denominator))
    return np.divide(numerator, denominator, out=out, where=denominator != 0)
