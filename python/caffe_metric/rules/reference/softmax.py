"""What MarginSoftmaxLoss does to whole rows: exponentials, and the draw of classes."""

from __future__ import annotations

import numpy as np

from caffe_metric.rules.reference.random import draw, stream_of


def exponentials(z: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """z (N x C) becomes exp(z - shift), shift being a number a row. The rows' sums, in float64."""
    z -= shift[:, None]
    np.exp(z, out=z)
    return z.sum(axis=1, dtype=np.float64)


def draw_classes(key: int, classes: int, count: int, batch: np.ndarray) -> np.ndarray:
    """Partial FC (An et al. 2021, section 3.3): which classes meet, ascending.

    Those of the batch (ascending, each once), and of the others those with the smallest draws, up
    to `count` in all.
    """
    others = np.setdiff1d(np.arange(classes), batch, assume_unique=True)
    wanted = min(len(others), count - len(batch))
    if wanted <= 0:
        return np.asarray(batch, np.int64)
    numbers = draw(stream_of(key, 1, 0), others)
    chosen = np.argsort(numbers, kind="stable")[:wanted]
    return np.sort(np.concatenate([batch, others[chosen]])).astype(np.int64)
