"""How the cost of the layers grows with rows, classes and dimensions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

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
DIMS = (32, 64, 128, 256, 512, 1024, 2048)
PRODUCT = "one N×N×D product"


def run(threads: int, quick: bool) -> Result:
    result = Result()
    for rows in BATCHES[:4] if quick else BATCHES:
        _add(result, "Rows of a batch, D = 512", "N", rows, _batch(rows, 512))
    for classes in CLASSES[:2] if quick else CLASSES:
        running = margin_inner_product.contenders(256, 64, classes)
        running[0] = Contender("MarginInnerProduct", running[0].call, running[0].prepare)
        _add(result, "Classes, M = 256, K = 64", "C", classes, running)
    for classes in CLASSES[:2] if quick else CLASSES:
        _add(result, "Softmax over classes, M = 256, K = 128", "C", classes, _softmax(classes))
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


def _softmax(classes: int) -> list[Contender]:
    running = [
        margin_softmax_loss.layer(256, 128, classes, "", "MarginSoftmaxLoss"),
        margin_softmax_loss.layer(256, 128, classes, "sample_rate: 0.1", "sample_rate 0.1"),
    ]
    with contextlib.suppress(ImportError):
        arrays = margin_inner_product.batch(256, 128, classes)
        running.append(peers.torch_softmax(margin_softmax_loss.PEER, 1, arrays, classes))
    return running


def _triplets(rows: int, dim: int) -> Contender:
    body = triplet_rows.body("SQUARED_L2")
    layer = OneLayer("TripletLoss", body, triplet_rows.bottoms(rows, dim))
    return layer.contender("TripletLoss, 3 bottoms")


def _add(result: Result, plot: str, axis: str, x: int, running: Iterable[Contender]) -> None:
    times = interleave(list(running), 1, 0.3, least=3)
    for name, values in times.items():
        milliseconds = 1e3 * float(np.median(values))
        result.points.append(Point(plot, name, axis, x, "ms", milliseconds))
