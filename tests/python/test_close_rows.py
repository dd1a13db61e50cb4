"""Batches whose rows stand close together: C++ layers measure them by groups, each seen from one of
its rows, and make a gradient that is 0 outside of the groups by groups, too.

Groups begin at 32 close rows, and at batches of 256: the sizes here are above. Rows that are close
to their neighbours alone, groups within groups, and duplicates are what a grouping may get wrong.
The oracle has float64 differences of the rows. Rows that are 1e-3 apart have lost three digits of
theirs to float32 before a distance is made.
"""

from __future__ import annotations

import numpy as np
import pytest
from harness import Spec, assert_close, run

DIM = 6
TOLERANCE = 2e-3


def centres(rng, count):
    x = rng.normal(size=(count, DIM))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def clusters(rng):
    of = rng.integers(0, 5, 320)
    return centres(rng, 5)[of] + 1e-3 * rng.normal(size=(320, DIM)), of


def groups_within_groups(rng):
    of = rng.integers(0, 6, 320)
    near = 1e-2 * rng.normal(size=(6, DIM)) + centres(rng, 2)[np.arange(6) % 2]
    return near[of] + 2e-4 * rng.normal(size=(320, DIM)), of


def duplicates(rng):
    of = rng.integers(0, 4, 300)
    return centres(rng, 4)[of] + 1e-3 * centres(rng, 3)[rng.integers(0, 3, 300)], of


def one_point(rng):
    return np.repeat(centres(rng, 1), 280, axis=0), rng.integers(0, 3, 280)


def chain(rng):
    """Each is close to its neighbours, the ends are far apart."""
    angle = np.linspace(0, 1.5, 400)[:, None]
    x = np.concatenate([np.cos(angle), np.sin(angle), np.zeros((400, DIM - 2))], axis=1)
    return x[rng.permutation(400)], rng.integers(0, 5, 400)


BATCHES = [clusters, groups_within_groups, duplicates, one_point, chain]
by_batch = pytest.mark.parametrize("batch", BATCHES, ids=lambda batch: batch.__name__)


def made(batch, seed=3):
    x, labels = batch(np.random.default_rng(seed))
    return np.float32(x), labels


def measures(anchors, rows):
    """Differences and distances of rows, in float64."""
    differences = anchors[:, None].astype(np.float64) - rows[None]
    return differences, np.sqrt(np.square(differences).sum(axis=2))


def unit(x):
    x = np.float64(x)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def contrastive(x, labels, rows, row_labels, margin):
    """BatchContrastiveLoss with positive_margin 0 and its gradient; anchor i is row i."""
    u = unit(x)
    differences, d = measures(u, unit(rows))
    same = labels[:, None] == row_labels[None]
    np.fill_diagonal(same, False)
    others = (labels[:, None] != row_labels[None]) & (d < margin)
    of_same, of_others = 0.5 / max(same.sum(), 1), 0.5 / max(others.sum(), 1)
    loss = of_same * (same * d**2).sum() + of_others * (others * (margin - d) ** 2).sum()
    slope = 2 * of_same * same * d - 2 * of_others * others * (margin - d)
    along = (np.where(d > 0, slope / np.where(d > 0, d, 1), 0))[:, :, None] * differences
    gradient = along.sum(axis=1)
    count = len(x)
    gradient -= along[:, :count].sum(axis=0)
    gradient -= (gradient * u).sum(axis=1, keepdims=True) * u
    return loss, gradient / np.linalg.norm(np.float64(x), axis=1, keepdims=True)


@by_batch
@pytest.mark.parametrize("margin", [1e-3, 1.0])
def test_a_loss_of_close_rows(batch, margin):
    x, labels = made(batch)
    parameters = {"positive_margin": 0.0, "negative_margin": margin}
    found = run(Spec("BatchContrastiveLoss", parameters, 4), {"x": x, "y": labels})
    loss, _, *means = found.forward()
    value, slope = contrastive(x, labels, x, labels, float(np.float32(margin)))
    assert_close(loss, value, TOLERANCE)
    assert_close(found.backward(1, 0, 0, 0)["x"], slope, TOLERANCE, floor=1e-6)
    d = measures(unit(x), unit(x))[1]
    same = labels[:, None] == labels[None]
    assert_close(means[1], d[~same].mean(), TOLERANCE, floor=1e-6)


@by_batch
def test_close_rows_of_earlier_batches(batch):
    """The anchors are a part of the rows: no symmetric matrix."""
    x, labels = made(batch)
    count = len(x) // 2
    earlier = {"x": x[:count], "y": labels[:count]}
    now = {"x": x[count : 2 * count], "y": labels[count : 2 * count]}
    parameters = {"positive_margin": 0.0, "negative_margin": 1e-3}
    extra = f"batch_memory_param {{ rows: {count} }}"
    found = run(Spec("BatchContrastiveLoss", parameters, 1, extra=extra), earlier)
    found.forward()
    loss = found.forward(**now)[0]
    rows = np.concatenate([now["x"], earlier["x"]])
    row_labels = np.concatenate([now["y"], earlier["y"]])
    value, slope = contrastive(now["x"], now["y"], rows, row_labels, float(np.float32(1e-3)))
    assert_close(loss, value, TOLERANCE)
    assert_close(found.backward(1)["x"], slope, TOLERANCE, floor=1e-6)


@by_batch
@pytest.mark.parametrize("distance", ["L2", "SQUARED_L2"])
def test_distances_of_close_rows(batch, distance):
    x, labels = made(batch)
    parameters = {"mining": "ALL", "distance": distance, "margin": 0.1}
    found = run(Spec("TripletLoss", parameters, 4), {"x": x, "y": labels})
    _, _, d_ap, d_an = found.forward()
    d = measures(x, x)[1] ** (1 if distance == "L2" else 2)
    same = labels[:, None] == labels[None]
    assert_close(d_an, d[~same].mean(), TOLERANCE, floor=1e-9)
    np.fill_diagonal(same, False)
    assert_close(d_ap, d[same].mean(), TOLERANCE, floor=1e-9)
