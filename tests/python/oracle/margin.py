"""MarginInnerProduct, with angles: theta = arccos(c), psi = (-1)^k cos(m theta) - 2k."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from equal_lengths import zip_equal


@dataclass
class Options:
    m: int = 1
    lam: float = 0.0
    scale: float = 1.0
    normalize_features: bool = False
    angular_margin: float = 0.0
    cosine_margin: float = 0.0
    plain: bool = False  # TEST without margin_in_test


def psi(m, theta):
    k = min(math.floor(m * theta / math.pi), m - 1)
    return (-1) ** k * math.cos(m * theta) - 2 * k


def target(options, c):
    """What stands for c in the logit of the own class."""
    theta = math.acos(max(-1.0, min(1.0, c)))
    if options.angular_margin or options.cosine_margin:
        angle = theta + options.angular_margin
        if angle > math.pi:
            own = c - options.angular_margin * math.sin(options.angular_margin)
        else:
            own = math.cos(angle)
        return own - options.cosine_margin
    return (options.lam * c + psi(options.m, theta)) / (1 + options.lam)


def length(vector):
    return math.sqrt(sum(float(v) ** 2 for v in vector))


def unit(vector):
    norm = length(vector)
    return [float(v) / norm if norm else 0.0 for v in vector]


def forward(options, x, weights, labels):
    """Logits (M x C) of features x (M x K) and weights (C x K) of any length."""
    rows = [unit(w) for w in weights]
    logits = np.zeros((len(x), len(rows)))
    for i, feature in enumerate(x):
        norm, direction = length(feature), unit(feature)
        if norm == 0:
            continue
        r = 1.0 if options.normalize_features else norm
        for j, row in enumerate(rows):
            c = sum(a * b for a, b in zip_equal(direction, row))
            if j == int(labels[i]) and not options.plain:
                c = target(options, c)
            logits[i, j] = options.scale * r * c
    return logits


def annealed(base, gamma, power, lambda_min, t):
    return max(base * (1 + gamma * t) ** -power, lambda_min)


def psi_slope(m, c):
    """d psi / dc, by the chain rule through theta: (-1)^k m sin(m theta) / sin(theta)."""
    theta = math.acos(max(-1.0, min(1.0, c)))
    k = min(math.floor(m * theta / math.pi), m - 1)
    return (-1) ** k * m * math.sin(m * theta) / math.sin(theta)


def reference_backward(options, x, weights, labels, top_diff):
    """The gradient of SphereFace's published code: (dx, dW). Weights have unit rows."""
    dx, dw = np.zeros((len(x), len(x[0]))), np.zeros((len(weights), len(x[0])))
    for i, feature in enumerate(x):
        norm = length(feature)
        for j, row in enumerate(weights):
            diff = float(top_diff[i][j])
            for k in range(len(feature)):
                dw[j][k] += diff * float(feature[k])
            if norm == 0:
                continue
            if j != int(labels[i]):
                for k in range(len(feature)):
                    dx[i][k] += diff * float(row[k])
                continue
            c = sum(a * float(b) for a, b in zip_equal(unit(feature), row))
            value, slope = psi(options.m, math.acos(c)), psi_slope(options.m, c)
            c_w, c_x = slope, (value - c * slope) / norm
            size = math.hypot(c_w, c_x)
            for k in range(len(feature)):
                margin = (c_w * float(row[k]) + c_x * float(feature[k])) / size
                blended = (options.lam * float(row[k]) + margin) / (1 + options.lam)
                dx[i][k] += diff * blended
    return dx, dw
