"""CenterLoss: the squared distance of each row to the centre of its class. Wen et al. 2016."""

from __future__ import annotations

import numpy as np

from caffe_metric.rules.reference.strips import add_rows


def center(x, labels, centers):
    """The sum over the rows of ||x - c_y||^2 / 2, and x - c_y, N x D."""
    difference = x - centers[labels]
    return float(np.einsum("nd,nd->", difference, difference, dtype=np.float64)) / 2, difference


def center_changes(difference, labels, centers, published: bool):
    """What is added to the centres' diff: for each class the sum of c - x over its n rows.

    published: divided by 1 + n (equation 4).
    """
    out = np.zeros_like(centers)
    add_rows(out, labels, -difference)
    if published:
        counts = np.bincount(labels, minlength=len(centers))
        out /= (1 + counts)[:, None].astype(out.dtype)
    return out
