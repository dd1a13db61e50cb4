"""`caffe-metric train` with the real tool: a small net learns, resumes, and fails in one line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")

from caffe_metric.data import datum
from caffe_metric.data.lmdb_file import write_lmdb
from caffe_metric.support.errors import UserError
from caffe_metric.support.progress import Progress
from caffe_metric.training.log import read_log
from caffe_metric.training.process import Training, caffe_tool
from caffe_metric.training.solver import read_plan
from caffe_metric.training.watch import watch

try:
    caffe_tool()
except UserError:
    pytest.skip("the caffe tool is not built: ./run build", allow_module_level=True)

NET = """
layer { name: "data" type: "Data" top: "data" top: "label" transform_param { scale: 0.01 }
  data_param { source: "data.lmdb" batch_size: 16 backend: LMDB } }
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
  inner_product_param { num_output: 8 weight_filler { type: "xavier" } } }
layer { name: "norm" type: "Norm" bottom: "fc" top: "norm" }
layer { name: "triplet" type: "TripletLoss" bottom: "norm" bottom: "label" top: "triplet" top: "on"
  triplet_loss_param { margin: 0.3 mining: ALL } }
"""
SOLVER = """
net: "net.prototxt" base_lr: 0.02 lr_policy: "fixed" momentum: 0.9 max_iter: 60 display: 5
snapshot: 30 snapshot_prefix: "small" random_seed: 3 solver_mode: CPU
"""


@pytest.fixture
def folder(tmp_path, rng, monkeypatch):
    """A solver, its net and 64 images of four classes; the current folder."""
    monkeypatch.chdir(tmp_path)
    labels = np.arange(64) % 4
    images = rng.integers(0, 60, (4, 1, 5, 5))[labels] + rng.integers(0, 90, (64, 1, 5, 5))
    records = [
        ("", datum.encode(image.astype(np.uint8), int(label)))
        for image, label in zip(images, labels)
    ]
    write_lmdb("data.lmdb", records)
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    return tmp_path


def test_plan_knows_what_the_tops_tell(folder):
    plan = read_plan("solver.prototxt")
    assert (plan.max_iter, plan.snapshot_prefix) == (60, "small")
    assert plan.reports == {"on": "active"}
    assert plan.collapsed == pytest.approx({"triplet": 0.3})


def test_training_lowers_the_loss_and_resumes(folder, command):
    status, out, err = command("train", "--solver", "solver.prototxt", "--log", "caffe.log")
    assert (status, err) == (0, "")
    assert out.startswith("60/60  loss ")
    assert "active" in out
    assert "small_iter_60.caffemodel" in out
    log = read_log("caffe.log")
    active = log.train["on"][1]
    assert np.mean(active[-3:]) < 0.5 * np.mean(active[:2])
    (folder / "solver.prototxt").write_text(SOLVER.replace("max_iter: 60", "max_iter: 80"))
    assert command("train", "--solver", "solver.prototxt", "--resume", "--log", "2.log")[0] == 0
    assert read_log("2.log").train["loss"][0][0] == 60
    more = ("--weights", "small_iter_60.caffemodel", "--log", "3.log")
    assert command("train", "--solver", "solver.prototxt", *more)[0] == 0
    tuned = read_log("3.log").train["on"][1]
    assert tuned[0] < 0.5 * active[0]


def test_collapsed_embeddings_are_warned_of_and_a_child_is_ended(folder):
    # Every feature is the bias: all embeddings are equal, and no gradient reaches the weights.
    zero = (
        'layer { name: "zero" type: "Power" bottom: "data" top: "zero" power_param { scale: 0 } }'
    )
    text = NET.replace('layer { name: "fc"', zero + '\nlayer { name: "fc"')
    text = text.replace('bottom: "data" top: "fc"', 'bottom: "zero" top: "fc"')
    text = text.replace('type: "xavier" }', 'type: "xavier" } bias_filler { value: 1 }')
    (folder / "net.prototxt").write_text(text)
    (folder / "solver.prototxt").write_text(SOLVER.replace("max_iter: 60", "max_iter: 10000000"))

    def warn(text):
        raise Warned(text)

    with Training("solver.prototxt", "caffe.log") as training, pytest.raises(Warned) as warned:
        watch(training, read_plan("solver.prototxt"), Progress(), warn)
    assert "triplet stands at its value for equal embeddings" in str(warned.value)
    with pytest.raises(UserError, match="ended by SIGTERM"):
        training.poll()


class Warned(Exception):
    pass


def test_a_number_that_is_not_finite_stops_it(folder, command):
    text = SOLVER.replace("base_lr: 0.02", "base_lr: 1e30")
    (folder / "solver.prototxt").write_text(text)
    half = (
        'layer { name: "half" type: "Power" bottom: "fc" top: "half" power_param { scale: 0.5 } }'
    )
    loss = 'layer { name: "l" type: "EuclideanLoss" bottom: "fc" bottom: "half" top: "l" }'
    start = NET.partition('layer { name: "norm"')[0]
    (folder / "net.prototxt").write_text(start + half + loss)
    status, out, err = command("train", "--solver", "solver.prototxt")
    assert (status, out) == (1, "")
    assert re.search(r"iteration \d+: \S+ is (nan|inf); stopped", err)
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--solver", "missing.prototxt"), "missing.prototxt"),
        (("--solver", "solver.prototxt", "--resume"), "no snapshot small_iter_N"),
        (("--solver", "solver.prototxt", "--weights", "w"), "w: no such file"),
        (("--solver", "wrong.prototxt"), "base_rl"),
        (("--solver", "lost.prototxt"), "nowhere.prototxt"),
        (("--solver", "bad.prototxt"), "Unknown bottom blob 'date'"),
    ],
)
def test_failures_are_one_line(folder, command, arguments, message):
    (folder / "wrong.prototxt").write_text(SOLVER.replace("base_lr", "base_rl"))
    (folder / "lost.prototxt").write_text(SOLVER.replace("net.prototxt", "nowhere.prototxt"))
    (folder / "bad.prototxt").write_text(SOLVER.replace("net.prototxt", "bad_net.prototxt"))
    (folder / "bad_net.prototxt").write_text(NET.replace('bottom: "data"', 'bottom: "date"'))
    status, out, err = command("train", *arguments)
    assert (status, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1


def test_weights_and_resume_exclude_each_other(folder, command):
    with pytest.raises(SystemExit) as stop:
        command("train", "--solver", "solver.prototxt", "--resume", "--weights", "w")
    assert stop.value.code == 2


def test_an_interrupt_leaves_a_snapshot(folder):
    text = SOLVER.replace("max_iter: 60", "max_iter: 100000000").replace("snapshot: 30", "")
    (folder / "solver.prototxt").write_text(text.replace("display: 5", "display: 1000"))
    arguments = [sys.executable, "-m", "caffe_metric", "train", "--solver", "solver.prototxt"]
    process = subprocess.Popen(
        [*arguments, "--log", "caffe.log"],
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    log = folder / "caffe.log"
    while not (log.exists() and "Iteration 1000" in log.read_text()):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert err == "caffe-metric train: interrupted\n"
    assert len(list(folder.glob("small_iter_*.solverstate"))) == 1
