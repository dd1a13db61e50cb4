"""y = x / max(||x||, eps) over axis 1, at each position of the further axes."""

from __future__ import annotations

import math

import numpy as np


def forward(x, eps=1e-10):
    x = np.asarray(x, np.float64)
    y = np.zeros_like(x)
    for row in range(x.shape[0]):
        for place in np.ndindex(x.shape[2:]):
            square = 0.0
            for channel in range(x.shape[1]):
                square += float(x[(row, channel, *place)]) ** 2
            for channel in range(x.shape[1]):
                y[(row, channel, *place)] = x[(row, channel, *place)] / max(math.sqrt(square), eps)
    return y


def backward(x, top_diff, eps=1e-10):
    """dx_c = sum_k dy_k (delta_ck / n - x_k x_c / n^3), n = ||x||; zero where n < eps."""
    x = np.asarray(x, np.float64)
    dx = np.zeros_like(x)
    for row in range(x.shape[0]):
        for place in np.ndindex(x.shape[2:]):
            vector = [float(x[(row, channel, *place)]) for channel in range(x.shape[1])]
            diff = [float(top_diff[(row, channel, *place)]) for channel in range(x.shape[1])]
            norm = math.sqrt(sum(value * value for value in vector))
            if norm < eps:
                continue
            for c in range(len(vector)):
                total = 0.0
                for k in range(len(vector)):
                    same = 1.0 / norm if k == c else 0.0
                    total += diff[k] * (same - vector[k] * vector[c] / norm**3)
                dx[(row, c, *place)] = total
    return dx
