"""TripletLoss over all triplets of a batch, against pytorch-metric-learning and one product."""

from __future__ import annotations

from benchmarks import blas
from benchmarks.layers import OneLayer, labels_of, unit_rows
from benchmarks.peers import metric_learning_triplets
from benchmarks.rows import Result, Row, timed_row
from benchmarks.timing import Contender, interleave

DIM, IMAGES = 512, 4
MARGIN = 0.2
LIBRARY = "pytorch-metric-learning"
PRODUCT = "one N×N×D product"
PROMISE_TO_LIBRARY = 0.05
# On one core, and on all of an idle machine.
PROMISE_TO_PRODUCT, PROMISE_ON_ALL = 4.0, 3.0
BODY = f"triplet_loss_param {{ mining: ALL margin: {MARGIN:g} }}"


def layer(rows: int, dim: int) -> OneLayer:
    bottoms = {"features": unit_rows(rows, dim), "labels": labels_of(rows, IMAGES)}
    return OneLayer("TripletLoss", BODY, bottoms)


def run(threads: int, quick: bool) -> Result:
    return Result(
        [
            _against_library(512, threads, 1 if quick else 5),
            _against_product(2048, threads, 1 if quick else 4),
        ]
    )


def _against_library(rows: int, threads: int, seconds: float) -> Row:
    what, size = "TripletLoss ALL", f"N = {rows}, D = {DIM}, {IMAGES} a class"
    promise = PROMISE_TO_LIBRARY if threads == 1 else None
    try:
        peer = metric_learning_triplets(
            LIBRARY, threads, MARGIN, unit_rows(rows, DIM), labels_of(rows, IMAGES)
        )
    except ImportError as error:
        return Row(what, size, LIBRARY, promise=promise, threads=threads, missing=str(error))
    times = interleave([layer(rows, DIM).contender("ours"), peer], threads, seconds)
    return timed_row(what, size, times, "ours", LIBRARY, promise, threads)


def _against_product(rows: int, threads: int, seconds: float) -> Row:
    contenders = [
        layer(rows, DIM).contender("ours"),
        Contender(PRODUCT, blas.product(rows, rows, DIM)),
    ]
    times = interleave(contenders, threads, seconds)
    size = f"N = {rows}, D = {DIM}, {IMAGES} a class"
    promise = PROMISE_TO_PRODUCT if threads == 1 else PROMISE_ON_ALL
    return timed_row("TripletLoss ALL", size, times, "ours", PRODUCT, promise, threads)
