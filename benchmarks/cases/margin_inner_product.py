"""MarginInnerProduct QUADRUPLE, forward and backward, against Caffe's own InnerProduct."""

from __future__ import annotations

import numpy as np

from benchmarks import older, others
from benchmarks.layers import OneLayer
from benchmarks.rows import Result, timed_row
from benchmarks.timing import Contender, interleave

ROWS, DIM = 256, 512
CLASSES = (10572, 85742)
PROMISE, PROMISE_BESIDE_OTHERS = 1.15, 1.3
LAMBDA = 5.0
STOCK = "stock InnerProduct"


def body(classes: int) -> str:
    return (
        f"margin_inner_product_param {{ num_output: {classes} type: QUADRUPLE "
        f'base: {LAMBDA:g} weight_filler {{ type: "gaussian" std: 0.1 }} }}'
    )


def stock_body(classes: int) -> str:
    return (
        f"inner_product_param {{ num_output: {classes} bias_term: false "
        'weight_filler { type: "gaussian" std: 0.1 } }'
    )


def batch(rows: int, dim: int, classes: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(11)
    features = rng.standard_normal((rows, dim), dtype=np.float32)
    return {"features": features, "labels": rng.integers(0, classes, rows).astype(np.float32)}


def set_top_diff(layer: OneLayer) -> None:
    """Random gradients from above."""
    np.random.default_rng(12).standard_normal(dtype=np.float32, out=layer.top.diff)


def unscale(layer: OneLayer):
    """What an update does to the weights: no row has length 1 any more."""

    def prepare() -> None:
        layer.weights.data[...] *= 1.001

    return prepare


def contenders(rows: int, dim: int, classes: int) -> list[Contender]:
    """Ours and the stock layer."""
    bottoms = batch(rows, dim, classes)
    ours = OneLayer("MarginInnerProduct", body(classes), bottoms)
    stock = OneLayer("InnerProduct", stock_body(classes), {"features": bottoms["features"]})
    set_top_diff(ours)
    set_top_diff(stock)
    return [ours.contender("ours", prepare=unscale(ours)), stock.contender(STOCK)]


def run(threads: int, quick: bool) -> Result:
    result = Result()
    for classes in CLASSES[:1] if quick else CLASSES:
        running = contenders(ROWS, DIM, classes)
        if threads == 1 and not quick:
            running.append(Contender("older formulation", _older(classes), rounds=2))
        times = interleave(running, threads, 1 if quick else 8)
        size = f"M = {ROWS}, K = {DIM}, C = {classes}"
        for peer in list(times)[1:]:
            promise = PROMISE if peer == STOCK else None
            result.rows.append(
                timed_row("MarginInnerProduct", size, times, "ours", peer, promise, threads)
            )
        if threads > 1:
            with others.at_work(threads):
                times = interleave(running, threads, 1 if quick else 12)
            what = "MarginInnerProduct, all cores busy with other work"
            promise = PROMISE_BESIDE_OTHERS
            result.rows.append(timed_row(what, size, times, "ours", STOCK, promise, threads))
    return result


def _older(classes: int):
    bottoms = batch(ROWS, DIM, classes)
    rng = np.random.default_rng(13)
    weights = rng.standard_normal((classes, DIM), dtype=np.float32)
    top_diff = rng.standard_normal((ROWS, classes), dtype=np.float32)
    return older.margin_inner_product(
        bottoms["features"], bottoms["labels"], weights, top_diff, LAMBDA
    )
