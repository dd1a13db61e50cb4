"""Triplets of a whole data set, by its embeddings."""

from __future__ import annotations

import numpy as np

from caffe_metric.evaluation.metrics.neighbours import nearest_rows
from caffe_metric.evaluation.metrics.similarity import unit_rows

STRATEGIES = ("semihard", "hard")


def mine(embeddings, labels, strategy, margin=0.2, negatives=1, neighbours=100, rng=None):
    """Mines triplets among the rows of embeddings [N, D]; int64 [T, 2 + negatives].

    Columns: anchor, positive, negatives (nearest first for `hard`, in random order for
    `semihard`). neighbours: how many nearest rows of each are looked through. An anchor without a
    partner, or without enough negatives among its neighbours, gives no triplet. Squared distances
    of unit rows, as TripletLoss has them after Norm.
    """
    rng = rng or np.random.default_rng(0)
    labels = np.asarray(labels)
    unit = unit_rows(embeddings)
    near = nearest_rows(unit, neighbours)
    positives = _positives(labels, rng)
    anchors = np.flatnonzero(positives >= 0)
    near, positives = near[anchors], positives[anchors]
    to_positive = _distance(unit, anchors, positives)
    to_near = np.stack([_distance(unit, anchors, column) for column in near.T], axis=1)
    wanted = labels[near] != labels[anchors, None]
    if strategy == "semihard":
        wanted &= to_near > to_positive[:, None]
        wanted &= to_near < to_positive[:, None] + margin
        order = np.where(wanted, rng.random(near.shape), np.inf)
    else:
        order = np.where(wanted, np.arange(near.shape[1]), np.inf)
    chosen = np.argsort(order, axis=1, kind="stable")[:, :negatives]
    enough = wanted.sum(axis=1) >= negatives
    found = np.take_along_axis(near, chosen, axis=1)
    return np.column_stack([anchors, positives, found])[enough]


def _positives(labels, rng):
    """Another row of each row's class, at random; -1 where there is none."""
    positives = np.full(len(labels), -1)
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    for rows in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        if len(rows) > 1:
            # Anybody but oneself, each with the same chance.
            steps = rng.integers(1, len(rows), len(rows))
            positives[rows] = rows[(np.arange(len(rows)) + steps) % len(rows)]
    return positives


def _distance(unit, left, right):
    return np.square(unit[left] - unit[right]).sum(axis=1)
