"""RankHardLoss against loops in float64: values, reports and gradients of what it selects.

Left out here: what it draws at random (test_selection.py). Every selection below leaves no choice.
"""

from __future__ import annotations

import numpy as np
import pytest
import tolerances
from harness import ENGINES, Spec, assert_close, run, unit_rows
from oracle import numeric, rank_hard

NORMALIZATIONS = [None, "FULL", "VALID", "BATCH_SIZE", "NONE"]


def check(engine, x, labels, normalization=None, taken=None, **parameters):
    pair_size, neg_num = parameters.get("pair_size", 2), parameters.get("neg_num", 1)
    margin = parameters.get("margin", 0.5)
    made = run(Spec("RankHardLoss", parameters, 2, engine, normalization), {"x": x, "y": labels})
    found = made.forward()
    taken = taken or {
        i: rank_hard.candidates(x, labels, i, margin) for i in range(0, len(x), pair_size)
    }

    def loss(x):
        return rank_hard.loss(x, pair_size, neg_num, margin, taken, normalization)

    value, active = loss(x)
    assert_close(found[0], value, tolerances.VALUE)
    assert_close(found[1], active, tolerances.VALUE)
    gradients = made.backward(0.7)
    slope = numeric.gradient(lambda x: loss(x)[0], x)
    assert_close(gradients["x"], 0.7 * slope, tolerances.GRADIENT)
    assert not gradients["y"].any()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("pair_size", [2, 3])
def test_all_candidates_are_taken(rng, engine, normalization, pair_size):
    """neg_num above their number."""
    x = unit_rows(rng, 12, 5)
    labels = np.arange(12) // pair_size % 3
    check(engine, x, labels, normalization, neg_num=20, pair_size=pair_size, margin=0.9)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_hardest(rng, engine):
    """hard_ratio 1, rand_ratio 0: the neg_num with the smallest s."""
    x, labels = unit_rows(rng, 16, 7), np.arange(16) // 2
    taken = {i: rank_hard.candidates(x, labels, i, 2.0)[:3] for i in range(0, 16, 2)}
    check(engine, x, labels, taken=taken, neg_num=3, hard_ratio=1.0, rand_ratio=0.0, margin=2.0)


@pytest.mark.parametrize("engine", ENGINES)
def test_ties_take_the_lowest_index(rng, engine):
    row = unit_rows(rng, 1, 4)[0]
    x = np.stack([row] * 10)
    labels = np.arange(10) // 2
    taken = {i: [j for j in range(10) if labels[j] != labels[i]][:2] for i in range(0, 10, 2)}
    check(engine, x, labels, taken=taken, neg_num=2, hard_ratio=1.0, rand_ratio=0.0)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("n", "d"), [(2, 1), (2, 33), (4, 1), (6, 3), (10, 7)])
def test_sizes(rng, engine, n, d):
    check(engine, unit_rows(rng, n, d), np.arange(n) // 2, neg_num=9, margin=1.7)


@pytest.mark.parametrize("engine", ENGINES)
def test_one_class_only(rng, engine):
    made = run(
        Spec("RankHardLoss", {"neg_num": 3}, 2, engine), {"x": unit_rows(rng, 6, 3), "y": [4] * 6}
    )
    assert [float(top) for top in made.forward()] == [0, 0]
    assert not made.backward(1.0)["x"].any()
