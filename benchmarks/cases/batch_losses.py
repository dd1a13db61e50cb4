"""The losses over all pairs of a batch, forward and backward: against one product of all rows with
all rows, against pytorch-metric-learning, and of tight clusters against random rows.

The two products alone that all similarities and their gradient take are timed, too: they are the
floor of the losses that are nearer to it than to a fifth of pytorch-metric-learning.
"""

from __future__ import annotations

import numpy as np
from caffe_metric import suite

from benchmarks import blas
from benchmarks.layers import OneLayer, labels_of, unit_rows
from benchmarks.peers import metric_learning_loss
from benchmarks.rows import Result, Row, timed_row
from benchmarks.timing import Contender, interleave

ROWS, DIM, IMAGES = 2048, 512, 4
LIBRARY, PRODUCT, RANDOM = "pytorch-metric-learning", "one N×N×D product", "its time, random rows"
FLOOR = "its two products alone"
PROMISE_TO_LIBRARY, PROMISE_TO_PRODUCT, PROMISE_TO_RANDOM = 0.2, 4.0, 1.5
PROMISE_TO_FLOOR = 1.3
# Clusters whose rows differ by a thousandth of their norm: so many.
CLUSTERS = (7, ROWS // IMAGES)

# type: parameters.
LOSSES = {
    "BatchContrastiveLoss": "",
    "MultiSimilarityLoss": "",
    "CircleLoss": "",
    "SupConLoss": "",
    "LiftedStructureLoss": "form: SONG",
    "LiftedStructureLoss GENERALIZED": "form: GENERALIZED",
}
# Nothing is promised of them against the library: the products alone are a fifth of it or more.
BY_FLOOR = ("SupConLoss", "LiftedStructureLoss GENERALIZED")


def layer(name: str, features: np.ndarray, labels: np.ndarray) -> OneLayer:
    kind = name.split()[0]
    body = f"{suite.find(kind).field} {{ {LOSSES[name]} }}"
    return OneLayer(kind, body, {"features": features, "labels": labels})


def clusters(count: int, seed: int = 11) -> tuple[np.ndarray, np.ndarray]:
    """Rows of so many tight clusters, and which of them each is of."""
    labels = np.arange(ROWS) % count
    noise = unit_rows(ROWS, DIM, seed)
    return unit_rows(count, DIM)[labels] + np.float32(1e-3) * noise, labels.astype(np.float32)


def run(threads: int, quick: bool) -> Result:
    result = Result()
    for name in LOSSES:
        result.rows += _rows(name, threads, quick)
    return result


def _rows(name: str, threads: int, quick: bool) -> list[Row]:
    features, labels = unit_rows(ROWS, DIM), labels_of(ROWS, IMAGES)
    size = f"N = {ROWS}, D = {DIM}, {IMAGES} a class"
    contenders = [
        layer(name, features, labels).contender("ours"),
        Contender(PRODUCT, blas.product(ROWS, ROWS, DIM)),
    ]
    if name in BY_FLOOR:
        contenders.append(Contender(FLOOR, blas.pair_products(ROWS, DIM)))
    contenders += [
        layer(name, *clusters(count)).contender(f"{count} clusters") for count in CLUSTERS
    ]
    missing = ""
    try:
        peer = metric_learning_loss(LIBRARY, threads, name, features, labels)
        peer.call()
        contenders.append(peer)
    except ImportError as error:
        missing = str(error)
    except RuntimeError as error:  # PyTorch's word for too little memory
        missing = str(error).splitlines()[0]
    times = interleave(contenders, threads, 1 if quick else 4)
    alone = threads == 1
    rows = [
        timed_row(
            name, size, times, "ours", PRODUCT, PROMISE_TO_PRODUCT if alone else None, threads
        )
    ]
    promise = PROMISE_TO_LIBRARY if alone and name not in BY_FLOOR else None
    if missing:
        rows.append(Row(name, size, LIBRARY, promise=promise, threads=threads, missing=missing))
    else:
        rows.append(timed_row(name, size, times, "ours", LIBRARY, promise, threads))
        if name in BY_FLOOR:
            rows.append(timed_row(f"{name}: {FLOOR}", size, times, FLOOR, LIBRARY, None, threads))
    if name in BY_FLOOR:
        promise = PROMISE_TO_FLOOR if alone else None
        rows.append(timed_row(name, size, times, "ours", FLOOR, promise, threads))
    for count in CLUSTERS:
        row = timed_row(
            name,
            f"N = {ROWS}, {count} tight clusters",
            {RANDOM: times["ours"], **times},
            f"{count} clusters",
            RANDOM,
            PROMISE_TO_RANDOM if alone else None,
            threads,
        )
        rows.append(row)
    return rows
