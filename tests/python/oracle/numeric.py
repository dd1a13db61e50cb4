"""Gradients of an oracle's value by central differences in float64."""

from __future__ import annotations

import numpy as np


def gradient(function, x, step=1e-6):
    """d function / dx, x an array of any shape. Its error is about 1e-9 of a smooth function."""
    x = np.array(x, np.float64)
    result = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        kept = x[index]
        x[index] = kept + step
        above = function(x)
        x[index] = kept - step
        below = function(x)
        x[index] = kept
        result[index] = (above - below) / (2 * step)
    return result
