"""The orders of `convert`: every batch a Data layer will cut has the identities it should.

Awkward sizes on purpose: odd classes, classes smaller than a group, one class only.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from caffe_metric.data.order import pairs_order, pk_order, random_order, source_order
from caffe_metric.support.errors import UserError

LABELS = np.array([3] * 7 + [0] * 4 + [9] * 1 + [5] * 5)


def test_source_and_random_visit_every_row_once_an_epoch(rng):
    for order in (source_order, random_order):
        epochs = list(order(LABELS, rng, epochs=3))
        assert len(epochs) == 3
        assert all(sorted(epoch) == list(range(len(LABELS))) for epoch in epochs)
    first, second = random_order(LABELS, rng, epochs=2)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("images", [2, 3, 5])
def test_pairs_are_groups_of_one_identity_without_repetition(rng, images):
    for epoch in pairs_order(LABELS, rng, epochs=2, images=images):
        groups = epoch.reshape(-1, images)
        assert all(len(set(LABELS[group])) == 1 for group in groups)
        assert all(len(set(group)) == images for group in groups)
        large = [row for row, label in enumerate(LABELS) if (label == LABELS).sum() >= images]
        assert set(epoch) == set(large)


def test_pairs_need_an_identity_with_two_images(rng):
    with pytest.raises(UserError, match="no identity has 2 images"):
        list(pairs_order(np.arange(5), rng))


@pytest.mark.parametrize(("identities", "images"), [(1, 1), (2, 3), (4, 2), (3, 6)])
def test_pk_batches(rng, identities, images):
    for epoch in pk_order(LABELS, rng, epochs=2, identities=identities, images=images):
        batches = epoch.reshape(-1, identities, images)
        for batch in batches:
            labels = LABELS[batch]
            assert (labels == labels[:, :1]).all()
            assert len(set(labels[:, 0])) == identities
            for rows in batch:
                available = (LABELS[rows[0]] == LABELS).sum()
                assert len(set(rows)) == min(images, available)


def test_pk_deals_identities_and_images_evenly(rng):
    labels = np.repeat(np.arange(5), 8)
    (epoch,) = pk_order(labels, rng, epochs=1, identities=2, images=4)
    # 5 batches x 2 identities: each of 5 identities twice, so each of its 8 images once.
    assert set(Counter(epoch.tolist()).values()) == {1}
    assert len(epoch) == len(labels)


def test_pk_has_a_batch_even_of_too_few_images(rng):
    (epoch,) = pk_order(np.array([0, 1]), rng, identities=2, images=4)
    assert Counter(epoch.tolist()) == {0: 4, 1: 4}


def test_pk_needs_enough_identities(rng):
    with pytest.raises(UserError, match="5 identities a batch, but there are 4"):
        list(pk_order(LABELS, rng, identities=5, images=2))
    with pytest.raises(UserError, match="there are 0"):
        list(pk_order(np.array([], int), rng, identities=1, images=2))
