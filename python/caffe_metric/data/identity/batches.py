"""Which images stand in a batch: a function of the seed and the batch's number.

An order is made of labels (an integer array [N]), the size of a batch and a seed; called with a
batch's number, from 0, it gives the row numbers of that batch. No batch depends on an earlier one,
so that a training goes on at any of them at once. Rows come round by epochs: each is shuffled anew,
from the seed and the epoch's number.
"""

from __future__ import annotations

import numpy as np

from caffe_metric.data.order import pairs_order, random_order, rows_by_class
from caffe_metric.support.errors import UserError

# Draws that have nothing to do with each other: of epochs, of identities, of images, of crops.
EPOCH, ROUND, IMAGES, CROPS = range(4)


def generator(seed: int, *place: int) -> np.random.Generator:
    """The generator of one place of a training."""
    return np.random.default_rng([seed, *place])


class _Epochs:
    """Batches of the rows of all epochs, one after another; an epoch may end inside a batch."""

    def __init__(self, seed, batch_size, group, make):
        if batch_size < 1 or batch_size % group:
            raise UserError(f"batch_size is {batch_size}, must be a multiple of {group}")
        self._seed, self._size, self._make = seed, batch_size, make
        self._made = {}
        self._length = len(self._epoch(0))  # of every epoch

    def _epoch(self, number):
        if number not in self._made:
            self._made = {old: rows for old, rows in self._made.items() if old == number - 1}
            self._made[number] = self._make(generator(self._seed, EPOCH, number))
        return self._made[number]

    def __call__(self, number: int):
        epoch, start = divmod(number * self._size, self._length)
        parts, missing = [], self._size
        while missing:
            parts.append(self._epoch(epoch)[start : start + missing])
            missing -= len(parts[-1])
            epoch, start = epoch + 1, 0
        return np.concatenate(parts)


def shuffled(labels, seed: int, batch_size: int):
    """Images of any identity, each once an epoch: for a classification loss."""
    return _Epochs(seed, batch_size, 1, lambda rng: next(random_order(labels, rng)))


def pairs(labels, seed: int, batch_size: int, images: int = 2):
    """Groups of `images` rows of one identity, anchor and positive first, as RankHardLoss reads.

    Identities with fewer than `images` images are left out.
    """
    if images < 1:
        raise UserError(f"images is {images}, must be at least 1")
    return _Epochs(
        seed, batch_size, images, lambda rng: next(pairs_order(labels, rng, images=images))
    )


def listed(labels, seed: int, batch_size: int, images: int = 2, shuffle: bool = False):
    """Groups of `images` rows as they stand together in the source; the groups shuffled, or not.

    Rows at the end that fill no group are left out. Raises UserError for a group of two identities.
    """
    if images < 1:
        raise UserError(f"images is {images}, must be at least 1")
    rows = np.arange(len(labels) // images * images).reshape(-1, images)
    if not len(rows):
        raise UserError(f"{len(labels)} images make no group of {images}")
    mixed = np.flatnonzero((labels[rows] != labels[rows[:, :1]]).any(axis=1))
    if len(mixed):
        row = int(rows[mixed[0], 0])
        raise UserError(
            f"images {row} to {row + images - 1} are a group, but of several identities"
        )
    return groups(rows, seed, batch_size, shuffle)


def triplets(labels, seed: int, batch_size: int, num_negatives: int = 1):
    """Groups of anchor, positive and negatives, as the one-bottom layout of TripletLoss reads.

    Every image is an anchor or a positive once an epoch; identities with one image give negatives
    only.
    """
    draw_negatives = _Others(labels)

    def epoch(rng):
        pair = next(pairs_order(labels, rng, images=2)).reshape(-1, 2)
        negatives = draw_negatives(pair[:, 0], num_negatives, rng)
        return np.concatenate([pair, negatives], axis=1).ravel()

    return _Epochs(seed, batch_size, 2 + num_negatives, epoch)


def groups(rows, seed: int, batch_size: int, shuffle: bool = True):
    """Groups that are given, `rows` [T, size of a group]: each once an epoch, shuffled or not."""

    def epoch(rng):
        return (rows[rng.permutation(len(rows))] if shuffle else rows).ravel()

    return _Epochs(seed, batch_size, rows.shape[1], epoch)


def pk(labels, seed: int, identities: int, images: int):
    """`identities` x `images` rows, those of an identity side by side.

    A round shows each identity at least once, each time with other images until all have come; the
    last batch of a round is filled with identities of its first. An identity with fewer than
    `images` images repeats them.
    """
    classes = rows_by_class(labels) if len(labels) else []
    if len(classes) < identities:
        raise UserError(f"{identities} identities a batch, but there are {len(classes)}")
    batches = -(-len(classes) // identities)

    def batch(number):
        turn, place = divmod(number, batches)
        order = generator(seed, ROUND, turn).permutation(len(classes))
        chosen = np.resize(order, batches * identities)[place * identities :][:identities]
        # Who fills the last batch comes a second time.
        again = place * identities + np.arange(identities) >= len(classes)
        return np.concatenate(
            [_images(classes[one], seed, one, turn, second) for one, second in zip(chosen, again)]
        )

    def _images(rows, seed, one, turn, second):
        if second:
            return np.resize(generator(seed, IMAGES, one, turn, 1).permutation(rows), images)
        decks = -(-len(rows) // images)
        deck = generator(seed, IMAGES, one, turn // decks).permutation(rows)
        return np.resize(np.resize(deck, decks * images)[turn % decks * images :], images)

    return batch


def thirds(labels, seed: int, batch_size: int):
    """A third anchors, a third positives, a third negatives, the first two of one identity.

    The order of the older TripletSelectLayer. An identity with few images repeats them.
    """
    if batch_size < 1 or batch_size % 3:
        raise UserError(f"batch_size is {batch_size}, must be a multiple of 3")
    third = batch_size // 3
    draw_negatives = _Others(labels)
    classes = [rows for rows in rows_by_class(labels) if len(rows) >= 2]
    if not classes:
        raise UserError("no identity has 2 images")

    def batch(number):
        turn, place = divmod(number, len(classes))
        rows = classes[generator(seed, ROUND, turn).permutation(len(classes))[place]]
        rng = generator(seed, IMAGES, number)
        own = np.resize(rng.permutation(rows), 2 * third)  # anchors, then the images that follow
        if len(rows) <= third:
            own[third:] = np.roll(own[:third], -1)  # no image meets itself
        return np.concatenate([own, draw_negatives(own[:third], 1, rng)[:, 0]])

    return batch


class _Others:
    """Draws rows of other identities than that of given rows, all with the same probability."""

    def __init__(self, labels):
        classes, self._class = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise UserError("negatives need images of at least 2 identities")
        self._order = np.argsort(self._class, kind="stable")
        self._count = np.bincount(self._class)
        self._start = np.cumsum(self._count) - self._count

    def __call__(self, rows, count: int, rng):
        own = self._class[rows][:, None]
        rank = rng.integers(0, len(self._order) - self._count[own], (len(rows), count))
        # The rows stand by class: those of the own class are stepped over.
        rank += (rank >= self._start[own]) * self._count[own]
        return self._order[rank]
