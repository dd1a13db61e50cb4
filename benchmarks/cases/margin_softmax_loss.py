"""MarginSoftmaxLoss, forward and backward, against Caffe's own InnerProduct, and sampled."""

from __future__ import annotations

import contextlib

from benchmarks import peers
from benchmarks.cases.margin_inner_product import STOCK, batch, contenders, unscale
from benchmarks.layers import OneLayer
from benchmarks.rows import Result, timed_row
from benchmarks.timing import Contender, interleave

ROWS, DIM, CLASSES = 256, 512, 85742
QUICK_CLASSES = 10572
KEPT, MADE_TWICE, SAMPLED = 1.15, 1.5, 0.2
PEER = "PyTorch, normalised linear + cross entropy"


def body(classes: int, softmax: str = "") -> str:
    return (
        f"margin_inner_product_param {{ num_output: {classes} normalize_features: true scale: 64 "
        'cosine_margin: 0.35 weight_filler { type: "gaussian" std: 0.1 } } '
        f"margin_softmax_loss_param {{ {softmax} }}"
    )


def layer(rows: int, dim: int, classes: int, softmax: str, name: str) -> Contender:
    made = OneLayer("MarginSoftmaxLoss", body(classes, softmax), batch(rows, dim, classes))
    return made.contender(name, prepare=unscale(made))


def run(threads: int, quick: bool) -> Result:
    result = Result()
    classes = QUICK_CLASSES if quick else CLASSES
    keeps = {"kept": ("ALWAYS", KEPT), "made twice": ("NEVER", MADE_TWICE)}
    running = [
        layer(ROWS, DIM, classes, f"keep_logits: {how}", name) for name, (how, _) in keeps.items()
    ]
    running.append(contenders(ROWS, DIM, classes)[1])
    sampled = layer(ROWS, DIM, classes, "sample_rate: 0.1", "a tenth")
    size = f"M = {ROWS}, K = {DIM}, C = {classes}"
    with contextlib.suppress(ImportError):
        running.append(peers.torch_softmax(PEER, threads, batch(ROWS, DIM, classes), classes))
    times = interleave([*running, sampled], threads, 1 if quick else 12)
    for name, (_, promise) in keeps.items():
        what = f"MarginSoftmaxLoss, logits {name}"
        result.rows.append(timed_row(what, size, times, name, STOCK, promise, threads))
        if PEER in times:
            result.rows.append(timed_row(what, size, times, name, PEER, None, threads))
    what = "MarginSoftmaxLoss, sample_rate 0.1"
    promise = SAMPLED if threads == 1 else None  # one thread draws the classes
    result.rows.append(timed_row(what, size, times, "a tenth", "kept", promise, threads))
    return result
