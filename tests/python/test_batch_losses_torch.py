"""The losses over the pairs of a batch against pytorch-metric-learning 2.9, float64 on both sides.

A second oracle, by other people: the same formulas and reductions. CenterLoss, which it lacks, by
autograd of its formula. Left out: batches without both kinds of pairs, which it treats in as many
ways as it has losses.
"""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[torch]'")
pytest.importorskip("pytorch_metric_learning", reason="pytorch-metric-learning is not installed")

import caffe_metric
import torch
from pytorch_metric_learning import distances, losses, miners, reducers

UNIT, PLAIN = (distances.LpDistance(normalize_embeddings=unit) for unit in (True, False))
# Parameters are float32 numbers on our side: these are exact in it.
T, MARGIN = 0.125, 0.25


def contrastive(x, labels):
    parts = losses.ContrastiveLoss(0.125, 1.5, distance=UNIT, reducer=reducers.DoNothingReducer())
    found = parts(x, labels)
    same, other = (found[name]["losses"] for name in ("pos_loss", "neg_loss"))
    return (same.square().mean() + other[other > 0].square().mean()) / 2


def multi_similarity(x, labels):
    pairs = miners.MultiSimilarityMiner(epsilon=0.125)(x, labels)
    return losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5)(x, labels, pairs)


PEERS = {
    "contrastive": (
        "BatchContrastiveLoss",
        {"positive_margin": 0.125, "negative_margin": 1.5},
        contrastive,
    ),
    "multi-similarity": ("MultiSimilarityLoss", {"epsilon": 0.125}, multi_similarity),
    "multi-similarity, all pairs": (
        "MultiSimilarityLoss",
        {"epsilon": -1, "alpha": 4, "beta": 32},
        losses.MultiSimilarityLoss(alpha=4, beta=32, base=0.5),
    ),
    "circle": ("CircleLoss", {"gamma": 64}, losses.CircleLoss(m=0.25, gamma=64)),
    "sup-con": ("SupConLoss", {"temperature": T}, losses.SupConLoss(temperature=T)),
    "lifted": (
        "LiftedStructureLoss",
        {},
        losses.LiftedStructureLoss(neg_margin=1, pos_margin=0, distance=PLAIN),
    ),
    "lifted, unit": (
        "LiftedStructureLoss",
        {"normalize": True, "margin": MARGIN},
        losses.LiftedStructureLoss(neg_margin=MARGIN, pos_margin=0, distance=UNIT),
    ),
    "lifted, generalized": (
        "LiftedStructureLoss",
        {"form": "GENERALIZED"},
        losses.GeneralizedLiftedStructureLoss(neg_margin=1, pos_margin=0, distance=PLAIN),
    ),
}
BATCHES = {"pairs": np.arange(12) // 2, "unequal": np.array([0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 4])}
# Both in float64. SupCon adds a smallest number to its sums, LpDistance to distances of 0.
TOLERANCE = 1e-9


def close(ours, theirs):
    theirs = theirs.detach().numpy()
    size = max(1e-3, np.abs(theirs).max())
    assert np.abs(ours - theirs).max() <= TOLERANCE * size


@pytest.mark.parametrize("backend", ["core", "numpy"])
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", PEERS)
def test_values_and_gradients(rng, name, batch, backend):
    kind, parameters, peer = PEERS[name]
    if name == "lifted, generalized" and batch == "unequal":
        pytest.skip("takes the logarithm of an empty sum for 0: a row alone has a loss")
    if backend == "core":
        pytest.importorskip("caffe_metric._core")
    labels = BATCHES[batch]
    x = rng.normal(size=(len(labels), 7))
    value, gradient = getattr(caffe_metric, kind)(backend=backend, **parameters)(x, labels)
    tensor = torch.tensor(x, requires_grad=True)
    theirs = peer(tensor, torch.tensor(labels))
    theirs.backward()
    close(value, theirs)
    close(gradient, tensor.grad)


def test_proxy_anchor(rng):
    x, labels = rng.normal(size=(9, 5)), np.array([0, 0, 1, 3, 3, 3, 4, 4, 0])
    peer = losses.ProxyAnchorLoss(6, 5, margin=0.125, alpha=16).double()
    proxies = peer.proxies.detach().numpy().copy()
    ours = caffe_metric.ProxyAnchorLoss(num_output=6, margin=0.125, alpha=16)
    value, (by_x, by_proxy) = ours(x, labels, weights=proxies)
    tensor = torch.tensor(x, requires_grad=True)
    theirs = peer(tensor, torch.tensor(labels))
    theirs.backward()
    close(value, theirs)
    close(by_x, tensor.grad)
    close(by_proxy, peer.proxies.grad)


def test_center(rng):
    x, labels = rng.normal(size=(9, 5)), np.array([0, 0, 1, 3, 3, 3, 4, 4, 0])
    centers = rng.normal(size=(6, 5))
    ours = caffe_metric.CenterLoss(num_output=6, update="GRADIENT")
    value, (by_x, by_center) = ours(x, labels, weights=centers)
    rows, learned = (torch.tensor(array, requires_grad=True) for array in (x, centers))
    theirs = (rows - learned[torch.tensor(labels)]).square().sum() / (2 * len(x))
    theirs.backward()
    close(value, theirs)
    close(by_x, rows.grad)
    close(by_center, learned.grad)
