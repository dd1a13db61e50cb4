"""What is drawn at random may be drawn, is drawn evenly, and is drawn again from the same seed.

The selected rows are read back from the gradient: dx = L x has one solution L where the rows of x
are linearly independent, and L[a, n] > 0 says that anchor a took negative n. The batches are such
that no other term meets that entry.
"""

from __future__ import annotations

import numpy as np
import pytest
import tolerances
from harness import ENGINES, Spec, assert_close, run, unit_rows
from oracle import rank_hard, triplet

SEEDS = 300


def coefficients(x, gradient):
    """L of dx = L x."""
    solution, *_ = np.linalg.lstsq(np.float64(x).T, np.float64(gradient).T, rcond=None)
    return solution.T


def assert_even(counts, probability):
    """Counts of SEEDS draws, each within five standard deviations."""
    deviation = np.sqrt(probability * (1 - probability) * SEEDS)
    assert np.abs(np.asarray(counts) - probability * SEEDS).max() <= 5 * deviation + 1


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("neg_num", "hard_ratio", "rand_ratio"),
    [(4, 0.5, 0.5), (4, 1.0, 0.5), (4, 0.0, 1.0), (5, 0.5, 0.0), (3, 0.34, 0.67), (2, 0.0, 0.0)],
)
def test_rank_hard(rng, engine, neg_num, hard_ratio, rand_ratio):
    """Two groups of one class; every other row is a class of its own and in no pair."""
    size = 12
    x = unit_rows(rng, 2 * size, 32)
    labels = np.arange(2 * size)
    labels[[0, 1, size, size + 1]] = 0
    parameters = {
        "pair_size": size,
        "neg_num": neg_num,
        "hard_ratio": hard_ratio,
        "rand_ratio": rand_ratio,
        "margin": 2.5,  # unit rows: every negative is a candidate, every hinge > 0
    }
    made = run(Spec("RankHardLoss", parameters, 1, engine), {"x": x, "y": labels})
    hard, rest = rank_hard.numbers(neg_num, hard_ratio, rand_ratio)
    counts = {0: np.zeros(2 * size), size: np.zeros(2 * size)}
    for seed in range(SEEDS):
        loss = made.forward(seed=seed)[0]
        found = coefficients(x, made.backward(neg_num * 4.0)["x"])
        taken = {}
        for anchor in counts:
            taken[anchor] = [j for j in np.flatnonzero(labels) if found[anchor, j] > 0.5]
            hardest = rank_hard.candidates(x, labels, anchor, 2.5)[:neg_num]
            assert len(taken[anchor]) == hard + rest
            assert len(set(taken[anchor]) & set(hardest)) >= hard
            counts[anchor][taken[anchor]] += 1
        if seed % 50 == 0:
            expected, _ = rank_hard.loss(x, size, neg_num, 2.5, taken)
            assert_close(loss, expected, tolerances.VALUE)
    of_hard = hard / neg_num
    for anchor, count in counts.items():
        order = rank_hard.candidates(x, labels, anchor, 2.5)
        of_rest = rest / (len(order) - hard)
        assert_even(count[order[:neg_num]], of_hard + (1 - of_hard) * of_rest)
        assert_even(count[order[neg_num:]], of_rest)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("mining", ["SEMIHARD", "VIOLATING"])
def test_mining(rng, engine, mining):
    """Rows 0 and 1 are the only pair; every other row is a class of its own."""
    n = 16
    x = np.float32(rng.normal(size=(n, 20)))
    x[1] = x[0] + 0.8 * (x[1] - x[0])
    labels = np.array([0, 0, *range(2, n)])
    options = triplet.Options(margin=24.0, mining=mining)
    made = run(
        Spec("TripletLoss", {"margin": 24.0, "mining": mining}, 1, engine), {"x": x, "y": labels}
    )
    allowed = triplet.candidates(options, x, labels)
    for pair in [(0, 1), (1, 0)]:
        assert 1 < len(allowed[pair]) < n - 2, "the batch tests little"
    counts = np.zeros((2, n))
    for seed in range(SEEDS):
        loss = made.forward(seed=seed)[0]
        found = coefficients(x, made.backward(1.0)["x"])
        chosen = []
        for anchor, positive in [(0, 1), (1, 0)]:
            taken = [j for j in range(2, n) if found[anchor, j] > 0.1]
            assert len(taken) == 1
            assert taken[0] in allowed[anchor, positive]
            counts[anchor, taken[0]] += 1
            chosen.append((anchor, positive, taken[0]))
        if seed % 50 == 0:
            assert_close(loss, triplet.of_rows(options, x, labels, chosen).loss, tolerances.VALUE)
    for anchor, positive in [(0, 1), (1, 0)]:
        candidates = allowed[anchor, positive]
        assert_even(counts[anchor, candidates], 1 / len(candidates))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_seed_repeats_a_forward(rng, engine):
    x, labels = np.float32(rng.normal(size=(12, 6))), np.arange(12) // 3
    made = run(
        Spec("TripletLoss", {"mining": "VIOLATING", "margin": 9.0}, 1, engine),
        {"x": x, "y": labels},
    )
    first = [float(made.forward(seed=seed)[0]) for seed in range(8)]
    again = [float(made.forward(seed=seed)[0]) for seed in range(8)]
    assert first == again
    assert len(set(first)) > 1


@pytest.mark.parametrize("engine", ENGINES)
def test_the_seed_goes_on_between_forwards(rng, engine):
    """Without a new seed, the next forward draws other rows."""
    import caffe

    x, labels = np.float32(rng.normal(size=(12, 6))), np.arange(12) // 3
    made = run(
        Spec("TripletLoss", {"mining": "VIOLATING", "margin": 9.0}, 1, engine),
        {"x": x, "y": labels},
    )
    made.forward()
    caffe.set_random_seed(5)
    losses = [float(made.net.forward()["top0"]) for _ in range(8)]
    assert len(set(losses)) > 1
