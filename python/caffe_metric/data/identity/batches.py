"""Which images stand in a batch, and in which order.

Every function takes labels (an integer array [N]), the size of a batch and a
numpy.random.Generator, and yields arrays of row numbers, a batch each, without end.
"""

from __future__ import annotations

import numpy as np

from caffe_metric.data.order import pairs_order, pk_order, random_order
from caffe_metric.support.errors import UserError


def pk(labels, rng, identities: int, images: int):
    """`identities` x `images` rows, those of an identity side by side.

    An identity with fewer than `images` images repeats them.
    """
    while True:
        (epoch,) = pk_order(labels, rng, 1, identities, images)
        yield from epoch.reshape(-1, identities * images)


def pairs(labels, rng, batch_size: int, images: int = 2):
    """Groups of `images` rows of one identity, anchor and positive first, as RankHardLoss reads.

    Identities with fewer than `images` images are left out.
    """
    _require_multiple(batch_size, images)
    return _cut(_epochs(pairs_order, labels, rng, images=images), batch_size)


def listed(labels, rng, batch_size: int, images: int = 2, shuffle: bool = False):
    """Groups of `images` rows as they stand together in the source; the groups shuffled, or not.

    Rows at the end that fill no group are left out. Raises UserError for a group of two identities.
    """
    if images < 1:
        raise UserError(f"images is {images}, must be at least 1")
    _require_multiple(batch_size, images)
    groups = np.arange(len(labels) // images * images).reshape(-1, images)
    if not len(groups):
        raise UserError(f"{len(labels)} images make no group of {images}")
    mixed = np.flatnonzero((labels[groups] != labels[groups[:, :1]]).any(axis=1))
    if len(mixed):
        row = int(groups[mixed[0], 0])
        raise UserError(
            f"images {row} to {row + images - 1} are a group, but of several identities"
        )

    def epochs():
        while True:
            yield (groups[rng.permutation(len(groups))] if shuffle else groups).ravel()

    return _cut(epochs(), batch_size)


def triplets(labels, rng, batch_size: int, num_negatives: int = 1):
    """Groups of anchor, positive and negatives, as the one-bottom layout of TripletLoss reads.

    Every image is an anchor or a positive once an epoch; identities with one image give negatives
    only.
    """
    _require_multiple(batch_size, 2 + num_negatives)
    draw_negatives = _Others(labels, rng)

    def epochs():
        for epoch in _epochs(pairs_order, labels, rng, images=2):
            pair = epoch.reshape(-1, 2)
            negatives = draw_negatives(pair[:, 0], num_negatives)
            yield np.concatenate([pair, negatives], axis=1).ravel()

    return _cut(epochs(), batch_size)


def thirds(labels, rng, batch_size: int):
    """A third anchors, a third positives, a third negatives, the first two of one identity.

    The order of the older TripletSelectLayer. An identity with few images repeats them.
    """
    _require_multiple(batch_size, 3)
    third = batch_size // 3
    draw_negatives = _Others(labels, rng)
    classes, counts = np.unique(labels, return_counts=True)
    if not (counts >= 2).any():
        raise UserError("no identity has 2 images")
    rows_of = {label: np.flatnonzero(labels == label) for label in classes[counts >= 2]}
    while True:
        for label in rng.permutation(list(rows_of)):
            own = rng.permutation(rows_of[label])
            own = np.resize(own, 2 * third)  # anchors, then the images that follow
            if len(rows_of[label]) <= third:
                own[third:] = np.roll(own[:third], -1)  # no image meets itself
            yield np.concatenate([own, draw_negatives(own[:third], 1)[:, 0]])


def shuffled(labels, rng, batch_size: int):
    """Images of any identity, each once an epoch: for a classification loss."""
    return _cut(_epochs(random_order, labels, rng), batch_size)


class _Others:
    """Draws rows of other identities than that of given rows, all with the same probability."""

    def __init__(self, labels, rng):
        self._rng = rng
        classes, self._class = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise UserError("negatives need images of at least 2 identities")
        self._order = np.argsort(self._class, kind="stable")
        self._count = np.bincount(self._class)
        self._start = np.cumsum(self._count) - self._count

    def __call__(self, rows, count: int):
        own = self._class[rows][:, None]
        rank = self._rng.integers(0, len(self._order) - self._count[own], (len(rows), count))
        # The rows stand by class: those of the own class are stepped over.
        rank += (rank >= self._start[own]) * self._count[own]
        return self._order[rank]


def _epochs(order, labels, rng, **numbers):
    while True:
        yield from order(labels, rng, 1, **numbers)


def _cut(epochs, size):
    """Batches of the rows of all epochs, one after another; an epoch's end may stand inside one."""
    left = next(epochs)
    while True:
        while len(left) < size:
            left = np.concatenate([left, next(epochs)])
        yield left[:size]
        left = left[size:]


def _require_multiple(batch_size, group):
    if batch_size < 1 or batch_size % group:
        raise UserError(f"batch_size is {batch_size}, must be a multiple of {group}")
