"""L2 normalisation over axis 1, and its gradient."""

from __future__ import annotations

import numpy as np


def norm_forward(x: np.ndarray, eps: float, y: np.ndarray) -> np.ndarray:
    """y = x / max(||x||, eps) over axis 1 of N x C x S. Returns the norms, N x S.

    y may be x itself.
    """
    # In float64, the square of a float32 neither overflows nor underflows.
    norms = np.sqrt(np.einsum("ncs,ncs->ns", x, x, dtype=np.float64)).astype(x.dtype)
    np.divide(x, np.maximum(norms, x.dtype.type(eps))[:, None], out=y)
    return norms


def norm_backward(y, norms, eps: float, dy, dx) -> None:
    """dx = (dy - y (y . dy)) / ||x||, and 0 for a vector whose norm is under eps. dx may be dy."""
    scale = np.zeros_like(norms)
    np.divide(1, norms, out=scale, where=norms >= norms.dtype.type(eps))
    dots = np.einsum("ncs,ncs->ns", y, dy)
    np.subtract(dy, y * dots[:, None], out=dx)
    dx *= scale[:, None]
