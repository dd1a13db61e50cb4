"""Peers that other people wrote: PyTorch and pytorch-metric-learning. ImportError without them."""

from __future__ import annotations

import numpy as np

from benchmarks.timing import Contender


def torch_triplets(name: str, threads: int, margin: float, *rows: np.ndarray) -> Contender:
    """Forward and backward of TripletMarginLoss on three matrices of rows."""
    import torch

    torch.set_num_threads(threads)
    tensors = [torch.tensor(matrix, requires_grad=True) for matrix in rows]
    loss = torch.nn.TripletMarginLoss(margin=margin)

    def call() -> None:
        loss(*tensors).backward()

    return Contender(name, call, lambda: _clear(tensors))


def metric_learning_triplets(
    name: str, threads: int, margin: float, rows: np.ndarray, labels: np.ndarray
) -> Contender:
    """Forward and backward of the library's TripletMarginLoss, which takes all triplets."""
    from pytorch_metric_learning.losses import TripletMarginLoss

    features, classes = _batch(threads, rows, labels)
    loss = TripletMarginLoss(margin=margin)

    def call() -> None:
        loss(features, classes).backward()

    return Contender(name, call, lambda: _clear([features]))


def metric_learning_loss(
    name: str, threads: int, kind: str, rows: np.ndarray, labels: np.ndarray
) -> Contender:
    """Forward and backward of the library's loss of the same formula, with our defaults."""
    from pytorch_metric_learning import distances, losses, miners

    features, classes = _batch(threads, rows, labels)
    plain = distances.LpDistance(normalize_embeddings=False)
    pairs = miners.MultiSimilarityMiner(epsilon=0.1)
    kinds = {
        "BatchContrastiveLoss": lambda: losses.ContrastiveLoss(0, 1),
        "MultiSimilarityLoss": lambda: losses.MultiSimilarityLoss(2, 50, 0.5),
        "CircleLoss": lambda: losses.CircleLoss(m=0.25, gamma=256),
        "SupConLoss": lambda: losses.SupConLoss(temperature=0.1),
        "LiftedStructureLoss": lambda: losses.LiftedStructureLoss(1, 0, distance=plain),
        "LiftedStructureLoss GENERALIZED": lambda: losses.GeneralizedLiftedStructureLoss(
            1, 0, distance=plain
        ),
    }
    loss = kinds[kind]()

    def call() -> None:
        chosen = pairs(features, classes) if kind == "MultiSimilarityLoss" else None
        loss(features, classes, chosen).backward()

    return Contender(name, call, lambda: _clear([features]))


def torch_softmax(name: str, threads: int, arrays, classes: int) -> Contender:
    """Forward and backward of a linear layer of unit rows, and cross entropy."""
    import torch
    from torch.nn import functional

    features, labels = _batch(threads, arrays["features"], arrays["labels"])
    weights = torch.randn(classes, features.shape[1], requires_grad=True)

    def call() -> None:
        cosines = functional.linear(functional.normalize(features), functional.normalize(weights))
        functional.cross_entropy(64 * cosines, labels).backward()

    return Contender(name, call, lambda: _clear([features, weights]))


def _batch(threads: int, rows: np.ndarray, labels: np.ndarray):
    """Features that ask for a gradient, and labels; PyTorch on so many threads from here on."""
    import torch

    torch.set_num_threads(threads)
    return torch.tensor(rows, requires_grad=True), torch.tensor(labels.astype(np.int64))


def _clear(tensors) -> None:
    for tensor in tensors:
        tensor.grad = None
