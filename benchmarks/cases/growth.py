"""How the cost of the layers grows with rows, classes and dimensions."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from benchmarks import blas, peers
from benchmarks.cases import (
    margin_inner_product,
    margin_softmax_loss,
    rank_hard,
    triplet_all,
    triplet_rows,
)
from benchmarks.layers import OneLayer
from benchmarks.rows import Point, Result
from benchmarks.timing import Contender, interleave

BATCHES = (128, 256, 512, 1024, 2048, 4096, 8192)
CLASSES = (1_000, 10_000, 100_000, 1_000_000)
# With a tenth of them drawn, where half of the free memory holds the weights and their diff.
MOST_CLASSES = 10_000_000
DIMS = (32, 64, 128, 256, 512, 1024, 2048)
PRODUCT = "one N×N×D product"
SOFTMAX = "Softmax over classes, M = 256, K = 128"


def run(threads: int, quick: bool) -> Result:
    result = Result()
    for rows in BATCHES[:4] if quick else BATCHES:
        _add(result, "Rows of a batch, D = 512", "N", rows, _batch(rows, 512))
    for classes in CLASSES[:2] if quick else CLASSES:
        running = margin_inner_product.contenders(256, 64, classes)
        running[0] = Contender("MarginInnerProduct", running[0].call, running[0].prepare)
        _add(result, "Classes, M = 256, K = 64", "C", classes, running)
    for classes in CLASSES[:2] if quick else CLASSES:
        _softmax(result, classes)
    if not quick:
        _most_classes(result)
    for dim in DIMS[:4] if quick else DIMS:
        running = [*_batch(1024, dim), _triplets(1024, dim)]
        _add(result, "Dimensions, N = 1024", "D", dim, running)
    return result


def _batch(rows: int, dim: int) -> list[Contender]:
    return [
        Contender(PRODUCT, blas.product(rows, rows, dim)),
        rank_hard.layer(rows, dim).contender("RankHardLoss"),
        triplet_all.layer(rows, dim).contender("TripletLoss ALL"),
    ]


def _softmax(result: Result, classes: int) -> None:
    """Ours, then PyTorch's: at a million classes only one of them holds its memory at a time."""
    ours = {"MarginSoftmaxLoss": "", "sample_rate 0.1": "sample_rate: 0.1"}
    running = [
        margin_softmax_loss.layer(256, 128, classes, softmax, name)
        for name, softmax in ours.items()
    ]
    _add(result, SOFTMAX, "C", classes, running)
    del running
    with contextlib.suppress(ImportError):
        arrays = margin_inner_product.batch(256, 128, classes)
        peer = peers.torch_softmax(margin_softmax_loss.PEER, 1, arrays, classes)
        _add(result, SOFTMAX, "C", classes, [peer])


def _most_classes(result: Result) -> None:
    """Ten million classes, of as many dimensions as there is memory for."""
    for dim in (128, 64, 32):
        if 2 * 4 * MOST_CLASSES * dim < _free_memory() / 2:
            curve = "sample_rate 0.1" if dim == 128 else f"sample_rate 0.1, K = {dim}"
            running = margin_softmax_loss.layer(256, dim, MOST_CLASSES, "sample_rate: 0.1", curve)
            _add(result, SOFTMAX, "C", MOST_CLASSES, [running])
            return


def _free_memory() -> int:
    """Bytes that programs can still have."""
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    return 1024 * int(re.search(r"MemAvailable:\s*(\d+)", text)[1])


def _triplets(rows: int, dim: int) -> Contender:
    body = triplet_rows.body("SQUARED_L2")
    layer = OneLayer("TripletLoss", body, triplet_rows.bottoms(rows, dim))
    return layer.contender("TripletLoss, 3 bottoms")


def _add(result: Result, plot: str, axis: str, x: int, running: Iterable[Contender]) -> None:
    times = interleave(list(running), 1, 0.3, least=3)
    for name, values in times.items():
        milliseconds = 1e3 * float(np.median(values))
        result.points.append(Point(plot, name, axis, x, "ms", milliseconds))
