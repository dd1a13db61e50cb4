"""Trains a net of the older layers on a list of images, lines `person@file label`.

    .venv/bin/python examples/07_person_list/train.py --list build/person_list/train.txt

Prints, every --display iterations, the mean loss and the fraction of triplets whose positive is
nearer than their negative; writes the weights at the end.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
os.environ.setdefault("GLOG_minloglevel", "2")
sys.path.insert(0, str(HERE))  # its config.py is the one that `datalayer` finds

import config  # noqa: E402
import numpy as np  # noqa: E402

import caffe  # noqa: E402 - after the log level is set


class SolverWrapper:
    """A solver, and what its triplets look like."""

    def __init__(self, solver: Path, weights: Path | None):
        self.solver = caffe.get_solver(str(solver))
        if weights:
            self.solver.net.copy_from(str(weights))

    def train(self, iterations: int, display: int):
        """Yields (iteration, mean loss, fraction in order) of each `display` iterations."""
        losses, in_order = [], []
        for iteration in range(1, iterations + 1):
            self.solver.step(1)
            losses.append(float(self.solver.net.blobs["loss"].data))
            in_order.append(self.fraction_in_order())
            if iteration % display == 0 or iteration == iterations:
                yield iteration, np.mean(losses), np.mean(in_order)
                losses, in_order = [], []

    def fraction_in_order(self) -> float:
        """Of the triplets of the last batch, those with d(a, p) < d(a, n)."""
        a, p, n = (self.solver.net.blobs[name].data for name in ("anchor", "positive", "negative"))
        return float(np.mean(((a - p) ** 2).sum(axis=1) < ((a - n) ** 2).sum(axis=1)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", default=config.IMAGE_LIST, help="lines `person@file label`")
    parser.add_argument("--root", default=config.IMAGEPATH, help="the folder of its files")
    parser.add_argument("--solver", type=Path, default=HERE / "solver.prototxt")
    parser.add_argument("--weights", type=Path, help="start from these weights")
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--display", type=int, default=50)
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("build/person_list/model.caffemodel")
    )
    args = parser.parse_args()
    if not Path(args.list).exists():
        print(f"train: {args.list}: no such file; make_list.py makes one", file=sys.stderr)
        return 1
    config.IMAGE_LIST, config.IMAGEPATH = args.list, args.root
    try:
        wrapper = SolverWrapper(args.solver, args.weights)
        print(f"{'iteration':>9}{'loss':>9}{'in order':>10}")
        for iteration, loss, in_order in wrapper.train(args.iterations, args.display):
            print(f"{iteration:>9}{loss:>9.4f}{in_order:>10.3f}", flush=True)
    except ValueError:  # the layer has printed it
        return 1
    args.out.parent.mkdir(parents=True, exist_ok=True)
    wrapper.solver.net.save(str(args.out))
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
