"""Trains a million synthetic identities by MarginSoftmaxLoss, all of them or a drawn tenth a step.

An identity is a random unit centre. A picture of it is the centre beside nuisance of no meaning,
mixed by a fixed random matrix, with noise. The net, one linear layer, has to find the centre again;
the identities it is verified on are others than those it was trained with.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from pathlib import Path

os.environ.setdefault("GLOG_minloglevel", "2")

import numpy as np

import caffe

SIGNAL, NUISANCE, BATCH = 32, 32, 256
NET = """
force_backward: true
layer {{ name: "data" type: "Input" top: "picture" top: "label"
  input_param {{ shape {{ dim: {batch} dim: {dim} }} shape {{ dim: {batch} }} }} }}
layer {{ name: "embed" type: "InnerProduct" bottom: "picture" top: "embedding"
  param {{ lr_mult: 1 }}
  inner_product_param {{ num_output: {dim} bias_term: false
    weight_filler {{ type: "gaussian" std: 0.125 }} }} }}
layer {{ name: "loss" type: "MarginSoftmaxLoss" bottom: "embedding" bottom: "label"
  top: "loss" top: "lambda" top: "accuracy"
  param {{ lr_mult: 0 decay_mult: 0 }}
  margin_inner_product_param {{ num_output: {classes} persist_iteration: false
    normalize_features: true scale: 16 cosine_margin: 0.1 }}
  margin_softmax_loss_param {{ sample_rate: {rate} own_update: true
    update_rate: 0.5 update_momentum: 0.9 keep_logits: NEVER }} }}
"""
SOLVER = """
net: "{net}" base_lr: 0.05 lr_policy: "fixed" momentum: 0.9 max_iter: 100000
snapshot_prefix: "{folder}/million" random_seed: 1
"""


class Pictures:
    """Draws pictures of identities; the same number is the same identity."""

    def __init__(self, identities: int, seed: int):
        self.rng = np.random.default_rng(seed)
        centres = self.rng.standard_normal((identities, SIGNAL), dtype=np.float32)
        self.centres = centres / np.linalg.norm(centres, axis=1, keepdims=True)
        dim = SIGNAL + NUISANCE
        self.mixing = np.linalg.qr(np.random.default_rng(9).normal(size=(dim, dim)))[0]

    def draw(self, identities: np.ndarray) -> np.ndarray:
        count = len(identities)
        nuisance = 0.25 * self.rng.standard_normal((count, NUISANCE), dtype=np.float32)
        noise = 0.05 * self.rng.standard_normal((count, SIGNAL), dtype=np.float32)
        plain = np.hstack([self.centres[identities] + noise, nuisance])
        return np.float32(plain @ self.mixing)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def true_accepts(net, pictures: Pictures, pairs: int = 20_000) -> float:
    """Of the pairs of one identity, the part accepted where 0.1 % of the other pairs are."""
    identities = len(pictures.centres)
    same = np.arange(pairs) % identities
    other = (same + 1 + np.arange(pairs) // identities) % identities
    embed = net.params["embed"][0].data.T
    first, second, third = (unit(pictures.draw(which) @ embed) for which in (same, same, other))
    genuine, impostor = (first * second).sum(axis=1), (first * third).sum(axis=1)
    return float((genuine > np.quantile(impostor, 0.999)).mean())


def imprint(net, pictures: Pictures, step: int = 65_536) -> None:
    """Each class starts as the embedding of one picture (Qi et al. 2018)."""
    weights, embed = net.params["loss"][0].data, net.params["embed"][0].data.T
    for begin in range(0, len(weights), step):
        which = np.arange(begin, min(len(weights), begin + step))
        weights[which] = unit(pictures.draw(which) @ embed)


def peak_memory() -> float:
    """GiB of this process."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s*(\d+)", status)[1]) / 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--identities", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=0.1, help="sample_rate; 1 is all classes")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--folder", type=Path, default=Path("build/million"))
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    net_file, solver_file = args.folder / "net.prototxt", args.folder / "solver.prototxt"
    dim = SIGNAL + NUISANCE
    net_file.write_text(NET.format(batch=BATCH, dim=dim, classes=args.identities, rate=args.rate))
    solver_file.write_text(SOLVER.format(net=net_file, folder=args.folder))

    caffe.set_random_seed(1)
    solver = caffe.SGDSolver(str(solver_file))
    net, pictures, unseen = solver.net, Pictures(args.identities, 1), Pictures(10_000, 2)
    imprint(net, pictures)
    print(f"{args.identities} identities, sample_rate {args.rate:g}")
    print(f"{'step':>8} {'loss':>8} {'right':>7} {'TAR at FAR 0.1 %, unseen':>26}")
    spent = 0.0
    every = max(1, args.steps // 5)
    for number in range(args.steps + 1):
        if number % every == 0:
            accepted = true_accepts(net, unseen)
            loss, right = (float(net.blobs[name].data) for name in ("loss", "accuracy"))
            print(f"{number:8} {loss:8.4f} {right:7.3f} {accepted:26.3f}", flush=True)
        which = pictures.rng.integers(0, args.identities, BATCH)
        net.blobs["picture"].data[...] = pictures.draw(which)
        net.blobs["label"].data[...] = which
        began = time.perf_counter()
        solver.step(1)
        spent += time.perf_counter() - began
    print(f"{1e3 * spent / (args.steps + 1):.0f} ms a step, peak memory {peak_memory():.2f} GiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
