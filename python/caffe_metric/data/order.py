"""The order in which images stand in a file, so that a stock Data layer makes batches by identity.

Every function takes labels, an integer array [N], and a numpy.random.Generator, and yields arrays
of row numbers, one array an epoch. An LMDB holds several epochs one after another: each has
shuffles of its own.
"""

from __future__ import annotations

import numpy as np

from caffe_metric.support.errors import UserError


def rows_by_class(labels):
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order])) + 1
    return np.split(order, starts)


def source_order(labels, rng, epochs=1):
    """The rows as they came."""
    for _ in range(epochs):
        yield np.arange(len(labels))


def random_order(labels, rng, epochs=1):
    """A shuffle of all rows."""
    for _ in range(epochs):
        yield rng.permutation(len(labels))


def pairs_order(labels, rng, epochs=1, images=2):
    """Groups of `images` rows of one identity, as RankHardLoss reads them; the groups shuffled.

    Every row of an identity stands in one group an epoch; a last group that is not full is
    filled with other rows of its identity. Identities with fewer than `images` rows are left out.
    """
    _, own, counts = np.unique(labels, return_inverse=True, return_counts=True)
    kept = np.flatnonzero(counts >= images)
    if not len(kept):
        raise UserError(f"no identity has {images} images")
    starts = (np.cumsum(counts) - counts)[kept]
    # Places of the groups among an identity's rows; the filler comes from the front, so that no
    # group holds a row twice.
    slots = -(-counts[kept] // images) * images
    within = np.arange(slots.sum()) - np.repeat(np.cumsum(slots) - slots, slots)
    places = np.repeat(starts, slots) + within % np.repeat(counts[kept], slots)
    for _ in range(epochs):
        shuffled = np.lexsort((rng.random(len(labels)), own))  # within each identity
        groups = shuffled[places].reshape(-1, images)
        yield groups[rng.permutation(len(groups))].ravel()


def pk_order(labels, rng, epochs=1, identities=8, images=4):
    """Batches of `identities` x `images` rows; an identity's rows stand together.

    Identities come round by turns in shuffled order, and so do an identity's images, across
    batches and epochs. An identity with fewer than `images` rows repeats them. An epoch has as
    many whole batches as the rows fill, at least one.
    """
    classes = rows_by_class(labels) if len(labels) else []
    if len(classes) < identities:
        raise UserError(f"{identities} identities a batch, but there are {len(classes)}")
    deal_class = _Dealer(np.arange(len(classes)), rng)
    deal_rows = [_Dealer(rows, rng) for rows in classes]
    batches = max(1, len(labels) // (identities * images))
    for _ in range(epochs):
        epoch = [
            deal_rows[chosen].deal(images)
            for _ in range(batches)
            for chosen in deal_class.deal(identities)
        ]
        yield np.concatenate(epoch)


class _Dealer:
    """Deals from a deck in shuffled order; reshuffles when it is used up."""

    def __init__(self, deck, rng):
        self._deck, self._rng = deck, rng
        self._left = np.empty(0, deck.dtype)

    def deal(self, count):
        """`count` cards; no card twice in one deal, unless the deck is smaller than that."""
        dealt = self._left[:count]
        self._left = self._left[count:]
        while len(dealt) < count:
            deck = self._rng.permutation(self._deck)
            if count <= len(self._deck):
                # Cards already in this deal go to the back of the new deck.
                held = np.isin(deck, dealt)
                deck = np.concatenate([deck[~held], deck[held]])
            missing = count - len(dealt)
            dealt, self._left = np.concatenate([dealt, deck[:missing]]), deck[missing:]
        return dealt


ORDERS = {
    "source": source_order,
    "random": random_order,
    "pairs": pairs_order,
    "pk": pk_order,
}
