"""Triplets of a whole data set, by its embeddings."""

from __future__ import annotations

import numpy as np

from caffe_metric.evaluation.metrics.others import other_blocks
from caffe_metric.evaluation.metrics.similarity import unit_rows

STRATEGIES = ("semihard", "facenet", "vgg", "hard")
# Anchors whose distances are computed at a time.
_ANCHORS = 256


def mine(embeddings, labels, strategy, margin=0.2, negatives=1, neighbours=100, rng=None):
    """Mines triplets among the rows of embeddings [N, D]; int64 [T, 2 + negatives], by anchor.

    Columns: anchor, positive (another row of its class, at random), negatives. Negatives are of the
    `neighbours` rows of other classes that are nearest to the anchor, however many its own class
    has:

    semihard, facenet  at random, d_ap < d_an < d_ap + margin (Schroff et al. 2015, section 3.2)
    vgg                at random, d_an < d_ap + margin (as Parkhi et al. 2015 draw them)
    hard               the nearest, nearest first

    An anchor without a partner, or without enough such negatives, gives no triplet. d are squared
    distances of unit rows, as TripletLoss has them after Norm. Raises ValueError.
    """
    if negatives > neighbours:
        raise ValueError(f"{negatives} negatives of {neighbours} neighbours: look at more")
    rng = rng or np.random.default_rng(0)
    labels = np.asarray(labels)
    # The rows of a class side by side.
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(labels[order]) != 0, True])
    unit = np.ascontiguousarray(unit_rows(np.asarray(embeddings)[order]), np.float32)
    positives = _positives(starts, rng)
    found = [np.empty((0, 2 + negatives), np.int64)]
    for first, near in other_blocks(unit, starts, neighbours):
        for begin in range(0, len(near), _ANCHORS):
            rows = np.arange(begin, min(begin + _ANCHORS, len(near)))
            rows = rows[positives[first + rows] >= 0]
            anchors = first + rows
            triplets = _choose(
                unit, anchors, positives[anchors], near[rows], strategy, margin, negatives, rng
            )
            found.append(triplets)
    triplets = order[np.concatenate(found)]
    return triplets[np.argsort(triplets[:, 0], kind="stable")]


def _choose(unit, anchors, positives, near, strategy, margin, negatives, rng):
    to_positive = np.square(unit[anchors] - unit[positives]).sum(axis=1)[:, None]
    to_near = 2 - 2 * np.einsum("ad,akd->ak", unit[anchors], unit[near])
    wanted = near >= 0
    if strategy == "hard":
        order = np.where(wanted, np.arange(near.shape[1]), np.inf)
    else:
        wanted &= to_near < to_positive + margin
        if strategy != "vgg":
            wanted &= to_near > to_positive
        order = np.where(wanted, rng.random(near.shape), np.inf)
    chosen = np.argsort(order, axis=1, kind="stable")[:, :negatives]
    enough = wanted.sum(axis=1) >= negatives
    found = np.take_along_axis(near, chosen, axis=1)
    return np.column_stack([anchors, positives, found])[enough]


def _positives(starts, rng):
    """Another row of each row's class, at random; -1 where there is none."""
    counts = np.diff(starts)
    own, size = np.repeat(starts[:-1], counts), np.repeat(counts, counts)
    place = np.arange(starts[-1]) - own
    # Anybody but oneself, each with the same chance.
    steps = 1 + np.floor(rng.random(len(place)) * (size - 1)).astype(np.int64)
    return np.where(size > 1, own + (place + steps) % size, -1)
