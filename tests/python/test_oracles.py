"""The two oracles, loops and PyTorch, agree: in values and in gradients, all in float64.

They share no code and no formula: the loops use angles and differences, PyTorch autograd. Left out:
points where the loss has no derivative, which random features do not meet.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tolerances
from oracle import margin, norm, numeric, rank_hard, triplet

torch_oracle = pytest.importorskip("torch_oracle", reason="PyTorch is not installed")
torch = torch_oracle.torch


def close(ours, theirs, tolerance=tolerances.ORACLES):
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (2, 3, 2, 2)])
def test_norm(rng, shape):
    x, diff = rng.normal(size=shape), rng.normal(size=shape)
    given = torch_oracle.tensor(x)
    y = torch_oracle.norm(given)
    y.backward(torch.tensor(diff))
    close(norm.forward(x), y.detach())
    close(norm.backward(x, diff), given.grad)
    close(
        numeric.gradient(lambda x: np.sum(diff * norm.forward(x)), x),
        given.grad,
        tolerances.NUMERIC,
    )


@pytest.mark.parametrize(
    ("losstype", "distance", "swap"),
    list(
        itertools.product(
            ["HINGE", "RATIO", "SOFT"], ["SQUARED_L2", "L2", "LP", "COSINE"], [False, True]
        )
    ),
)
def test_triplet(rng, losstype, distance, swap):
    options = triplet.Options(
        margin=0.7, losstype=losstype, distance=distance, p=3.0, swap=swap, use_pair=True
    )
    rows = rng.normal(size=(3, 5, 3))
    given = torch_oracle.tensor(rows)
    loss, d_ap = torch_oracle.triplet_terms(options, *given)
    total = (loss + d_ap).sum() / 10
    total.backward()
    close(triplet.three_bottoms(options, *rows).loss, total.item())
    close(
        numeric.gradient(lambda rows: triplet.three_bottoms(options, *rows).loss, rows),
        given.grad,
        tolerances.NUMERIC,
    )


def test_triplet_is_pytorchs_triplet_margin_loss(rng):
    a, p, n = rng.normal(size=(3, 6, 4))
    for power, swap in itertools.product([1.0, 2.0, 3.5], [False, True]):
        options = triplet.Options(margin=0.4, distance="LP", p=power, swap=swap)
        loss = torch.nn.TripletMarginLoss(margin=0.4, p=power, swap=swap)
        theirs = loss(*(torch.tensor(rows) for rows in (a, p, n)))
        close(2 * triplet.three_bottoms(options, a, p, n).loss, theirs)


def test_rank_hard(rng):
    x = rng.normal(size=(8, 5))
    taken = {i: rank_hard.candidates(x, np.arange(8) // 2, i, 0.5)[:2] for i in range(0, 8, 2)}
    given = torch_oracle.tensor(x)
    total = torch_oracle.rank_hard(given, 2, 2, 0.5, taken)
    total.backward()

    def loss(x):
        return rank_hard.loss(x, 2, 2, 0.5, taken)[0]

    close(loss(x), total.item())
    close(numeric.gradient(loss, x), given.grad, tolerances.NUMERIC)


@pytest.mark.parametrize(
    "options",
    [margin.Options(m=m, lam=lam) for m in (1, 2, 3, 4) for lam in (0.0, 1.5)]
    + [
        margin.Options(scale=30, normalize_features=True, angular_margin=0.5),
        margin.Options(scale=30, normalize_features=True, cosine_margin=0.35),
        margin.Options(angular_margin=1.4, cosine_margin=0.1),
        margin.Options(m=4, plain=True),
    ],
)
def test_margin(rng, options):
    x, weights = rng.normal(size=(6, 3)), rng.normal(size=(4, 3))
    labels, diff = np.arange(6) % 4, rng.normal(size=(6, 4))
    features, rows = torch_oracle.tensor(x), torch_oracle.tensor(weights)
    logits = torch_oracle.margin_logits(options, features, rows, torch.tensor(labels))
    logits.backward(torch.tensor(diff))

    def objective(x, weights):
        return np.sum(diff * margin.forward(options, x, weights, labels))

    close(margin.forward(options, x, weights, labels), logits.detach())
    close(
        numeric.gradient(lambda x: objective(x, weights), x), features.grad, 10 * tolerances.NUMERIC
    )
    close(
        numeric.gradient(lambda rows: objective(x, rows), weights),
        rows.grad,
        10 * tolerances.NUMERIC,
    )
