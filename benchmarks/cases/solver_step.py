"""What Caffe's solver adds to a step over a million classes, of which a tenth meets.

A step is an iteration of SGD with momentum and decay over a net of MarginSoftmaxLoss alone. Caffe's
solver goes over every row of every blob: it clears the diffs, decays, adds the momentum, updates.
The layer's own passes beside it, once with the solver moving the weights and once with own_update.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

os.environ.setdefault("GLOG_minloglevel", "2")

from benchmarks.cases.margin_inner_product import batch
from benchmarks.rows import Result, timed_row
from benchmarks.timing import Contender, interleave

ROWS, DIM, CLASSES, QUICK_CLASSES = 256, 64, 1_000_000, 20_000
SOLVER = (
    'net: "{net}" base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.0005 '
    'max_iter: 1000000 random_seed: 1 snapshot_prefix: "{net}"'
)
NET = """
force_backward: true
layer {{ name: "features" type: "Input" top: "features" top: "labels"
  input_param {{ shape {{ dim: {rows} dim: {dim} }} shape {{ dim: {rows} }} }} }}
layer {{ name: "loss" type: "MarginSoftmaxLoss" bottom: "features" bottom: "labels" top: "loss"
  {param}
  margin_inner_product_param {{ num_output: {classes} persist_iteration: false scale: 16
    normalize_features: true cosine_margin: 0.1 weight_filler {{ type: "gaussian" std: 0.1 }} }}
  margin_softmax_loss_param {{ sample_rate: 0.1 {softmax} }} }}
"""
WAYS = {
    "the solver moves the weights": ("", ""),
    "own_update": (
        "param { lr_mult: 0 decay_mult: 0 }",
        "own_update: true update_rate: 0.1 update_decay: 0.0005",
    ),
}
ALONE = "the layer's passes alone"


def solver(folder: str, classes: int, param: str, softmax: str):
    """A solver of that net, with a batch in it."""
    import caffe

    net, path = Path(folder, "net.prototxt"), Path(folder, "solver.prototxt")
    net.write_text(NET.format(rows=ROWS, dim=DIM, classes=classes, param=param, softmax=softmax))
    path.write_text(SOLVER.format(net=net))
    made = caffe.SGDSolver(str(path))
    for name, values in batch(ROWS, DIM, classes).items():
        made.net.blobs[name].data[...] = values
    return made


def run(threads: int, quick: bool) -> Result:
    result = Result()
    classes = QUICK_CLASSES if quick else CLASSES
    size = f"M = {ROWS}, K = {DIM}, C = {classes}, sample_rate 0.1"
    for way, given in WAYS.items():
        with tempfile.TemporaryDirectory() as folder:
            made = solver(folder, classes, *given)
        last = len(made.net.layers) - 1

        def alone(net=made.net, last=last) -> None:
            net._forward(last, last)
            net._backward(last, last)

        running = [Contender("step", lambda made=made: made.step(1)), Contender(ALONE, alone)]
        times = interleave(running, threads, 1 if quick else 4)
        what = f"a step of Caffe's SGD, {way}"
        result.rows.append(timed_row(what, size, times, "step", ALONE, None, threads))
        del made
    return result
