"""Trains the demo's three nets with Python layers on an unpatched Caffe, and compares the recall.

    .venv/bin/python examples/04_python_layers/compare.py

It needs `./run demo stock` first: the databases and the C++ layers' results, and the unpatched
Caffe. Prints a table; exit status 1 where a recall at 1 differs from the C++ layers' by over 0.01.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from caffe_metric import suite
from caffe_metric.demo.images import load_images
from caffe_metric.demo.measure import measure
from caffe_metric.evaluation.extraction import extract
from caffe_metric.support.errors import UserError
from caffe_metric.support.progress import Progress
from caffe_metric.training.process import Training
from caffe_metric.training.solver import read_plan

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
DEMO = ROOT / "build" / "demo"
NAMES = ("triplet", "rank_hard", "margin")
OUR_TYPES = {row.type for row in suite.NATIVE}
TOLERANCE = 0.01


def use_stock(tree: Path) -> None:
    """Makes the trainings run by the unpatched tool, with its own pycaffe. Raises UserError."""
    tool = tree / "build" / "tools" / "caffe"
    if not tool.exists():
        raise UserError(f"{tool}: not there; `./run stock` makes it")
    os.environ["CAFFE_TOOL"] = str(tool)
    packages = [path for path in sys.path if path.endswith("site-packages")]
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(tree / "python"), str(ROOT / "python"), *packages]
    )
    types = subprocess.run(
        [sys.executable, "-c", "import caffe; print(*caffe.layer_type_list())"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "GLOG_minloglevel": "2"},
    )
    patched = OUR_TYPES & set(types.stdout.split())
    if patched:
        raise UserError(f"{tree} is patched: it has {', '.join(sorted(patched))}")


def train(names, backend: str | None) -> None:
    """Trains the nets side by side."""
    if backend:
        os.environ["CAFFE_METRIC_BACKEND"] = backend
    (DEMO / "python").mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(Progress())
        running = {}
        for name in names:
            solver, log = HERE / f"{name}_solver.prototxt", DEMO / "python" / f"{name}.log"
            running[name] = stack.enter_context(Training(solver, log, threads=1, folder=ROOT))
        trainings = dict(running)
        while running:
            running = {name: one for name, one in running.items() if not one.poll()}
            progress.show("   ".join(f"{n} {one.log.iteration}" for n, one in trainings.items()))
            time.sleep(0.1)


def recall_at_1(name: str, images) -> float:
    """Of the embeddings of the test images of the trained classes."""
    plan = read_plan(HERE / f"{name}_solver.prototxt", ROOT)
    weights = ROOT / f"{plan.snapshot_prefix}_iter_{plan.max_iter}.caffemodel"
    net = HERE / f"{name}.prototxt"
    embeddings = extract(net, weights, DEMO / "test.lmdb", "embedding", 500)[0]
    labels = images.test.labels
    return measure(embeddings.astype(np.float32), labels, images.unseen()).recall_at_1


def compare(args) -> bool:
    summary = DEMO / "summary.json"
    if not summary.exists():
        raise UserError(f"{summary}: not there; `./run demo` makes it")
    expected = json.loads(summary.read_text())
    use_stock(args.tree)
    if not args.only_compare:
        train(NAMES, args.backend)
    images = load_images()
    print(f"{'recall at 1':<12}{'C++':>8}{'Python':>9}")
    good = True
    for name in NAMES:
        recall, cpp = recall_at_1(name, images), expected[name]["recall_at_1"]
        print(f"{name:<12}{cpp:>8.3f}{recall:>9.3f}")
        good &= abs(recall - cpp) <= TOLERANCE
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tree", type=Path, default=ROOT / "build" / "stock", help="unpatched")
    parser.add_argument("--backend", choices=("core", "numpy"), help="of the row rules")
    parser.add_argument("--only-compare", action="store_true", help="models that are there already")
    args = parser.parse_args()
    try:
        if compare(args):
            return 0
        print(f"compare: a recall differs by more than {TOLERANCE}", file=sys.stderr)
    except UserError as error:
        print(f"compare: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
