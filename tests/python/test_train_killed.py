"""A training that is killed at random moments and resumed ends with the bits of one that was not.

Twenty times SIGKILL, to the process group (as when the power goes) or to the parent alone, most of
them while a snapshot is being written: one is due at every second iteration. The net has all that
draws at random, and the solvers all that they carry from one iteration to the next. C++ layers
under SGD and Python layers under Adam run side by side.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")

from caffe_metric.data import datum
from caffe_metric.data.lmdb_file import write_lmdb
from harness import need

KILLS = 20
ITERATIONS = 500
DATA = """
layer { name: "data" type: "Python" top: "data" top: "label"
  python_param { module: "caffe_metric.layers" layer: "IdentityDataLayer"
    param_str: "{source: faces.lmdb, identities: 3, images: 4, mirror: true, crop_size: 6, "
      "scale: 0.01, workers: 1}" } }
layer { name: "fc1" type: "InnerProduct" bottom: "data" top: "fc1"
  inner_product_param { num_output: 12 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "fc1" top: "fc1" }
layer { name: "drop" type: "Dropout" bottom: "fc1" top: "fc1" dropout_param { dropout_ratio: 0.3 } }
layer { name: "fc2" type: "InnerProduct" bottom: "fc1" top: "fc2"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
"""
LOSSES = {
    "cpp": """
layer { name: "norm" type: "Norm" bottom: "fc2" top: "unit" }
layer { name: "triplet" type: "TripletLoss" bottom: "unit" bottom: "label" top: "triplet"
  triplet_loss_param { margin: 0.4 mining: SEMIHARD } }
layer { name: "rank" type: "RankHardLoss" bottom: "unit" bottom: "label" top: "rank"
  rank_param { neg_num: 4 pair_size: 2 margin: 0.5 } }
layer { name: "margin" type: "MarginInnerProduct" bottom: "fc2" bottom: "label" top: "margin"
  param { lr_mult: 0 decay_mult: 0 }
  margin_inner_product_param { num_output: 8 type: DOUBLE weight_filler { type: "xavier" }
    base: 100 gamma: 0.1 lambda_min: 1 triplet: true } }
layer { name: "softmax" type: "SoftmaxWithLoss" bottom: "margin" bottom: "label" top: "softmax" }
""",
    "python": """
layer { name: "norm" type: "Python" bottom: "fc2" top: "unit"
  python_param { module: "caffe_metric.layers" layer: "NormLayer" } }
layer { name: "triplet" type: "Python" bottom: "unit" bottom: "label" top: "triplet" loss_weight: 1
  python_param { module: "caffe_metric.layers" layer: "TripletLossLayer"
    param_str: "{margin: 0.4, mining: SEMIHARD}" } }
layer { name: "rank" type: "Python" bottom: "unit" bottom: "label" top: "rank" loss_weight: 1
  python_param { module: "caffe_metric.layers" layer: "RankHardLossLayer"
    param_str: "{neg_num: 4, pair_size: 2, margin: 0.5}" } }
layer { name: "margin" type: "Python" bottom: "fc2" bottom: "label" top: "margin"
  param { lr_mult: 0 decay_mult: 0 } param { lr_mult: 0 decay_mult: 0 }
  python_param { module: "caffe_metric.layers" layer: "MarginInnerProductLayer"
    param_str: "{num_output: 8, type: DOUBLE, weight_filler: {type: xavier}, base: 100, "
      "gamma: 0.1, lambda_min: 1, triplet: true}" } }
layer { name: "softmax" type: "SoftmaxWithLoss" bottom: "margin" bottom: "label" top: "softmax" }
""",
}
SOLVERS = {
    "cpp": 'type: "SGD" base_lr: 0.05 momentum: 0.9 weight_decay: 0.001',
    "python": 'type: "Adam" base_lr: 0.01 momentum: 0.9 momentum2: 0.99 weight_decay: 0.001',
}


def prepare(folder, engine, snapshot):
    """A solver, its net and 48 images of 8 identities in a folder."""
    rng = np.random.default_rng(5)
    folder.mkdir()
    centres = rng.integers(0, 160, (8, 1, 8, 8))
    images = centres[np.arange(48) % 8] + rng.integers(0, 90, (48, 1, 8, 8))
    records = [("", datum.encode(image.astype(np.uint8), k % 8)) for k, image in enumerate(images)]
    write_lmdb(folder / "faces.lmdb", records)
    (folder / "net.prototxt").write_text(DATA + LOSSES[engine])
    (folder / "solver.prototxt").write_text(
        f'net: "net.prototxt" {SOLVERS[engine]} lr_policy: "fixed" iter_size: 2 '
        f'max_iter: {ITERATIONS} snapshot: {snapshot} snapshot_prefix: "net" solver_mode: CPU'
    )


def start(folder, *arguments):
    command = [sys.executable, "-m", "caffe_metric", "train", "--solver", "solver.prototxt"]
    return subprocess.Popen(
        [*command, "--seed", "7", "--threads", "1", *arguments],
        cwd=folder,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def newest(folder):
    numbers = [int(file.stem.rpartition("_")[2]) for file in folder.glob("net_iter_*.json")]
    return max(numbers, default=-1)


def kill_and_resume(folder, seed):
    """Returns the iterations of the snapshots that each of the killed processes had reached."""
    chance, reached = random.Random(seed), []
    process = start(folder)
    for _ in range(KILLS):
        before = newest(folder)
        while newest(folder) <= before:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.1))
        assert process.poll() is None, "it was too fast to be killed"
        if chance.random() < 0.5:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()  # its child goes with it
        process.communicate()
        reached.append(newest(folder))
        process = start(folder, "--resume")
    finish(process)
    return reached


def disturbed_and_not(folder, engine):
    whole, parts = folder / f"{engine}_whole", folder / f"{engine}_parts"
    prepare(whole, engine, 0)
    prepare(parts, engine, 2)
    finish(start(whole))
    return whole, parts, kill_and_resume(parts, engine)


@pytest.mark.slow(first=True)
def test_a_killed_training_ends_with_the_same_bits(tmp_path):
    for engine in LOSSES:
        need(engine)
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda engine: disturbed_and_not(tmp_path, engine), LOSSES))
    for whole, parts, reached in results:
        assert len(set(reached)) > KILLS // 2, reached
        for suffix in ("caffemodel", "solverstate"):
            name = f"net_iter_{ITERATIONS}.{suffix}"
            assert (whole / name).read_bytes() == (parts / name).read_bytes(), name
        assert not list(parts.glob(".net*")), "nothing is left aside"
