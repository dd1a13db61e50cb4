"""`caffe-metric train` with the real tool: a small net learns, resumes, and fails in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")

from caffe_metric.data import datum
from caffe_metric.data.lmdb_file import write_lmdb
from caffe_metric.training.log import read_log
from caffe_metric.training.process import Training
from caffe_metric.training.solver import read_plan

pytestmark = pytest.mark.slow

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


OLD = """
layers { name: "data" type: DATA top: "data" top: "label" transform_param { scale: 0.01 }
  data_param { source: "data.lmdb" batch_size: 16 backend: LMDB } }
layers { name: "out" type: INNER_PRODUCT bottom: "data" top: "out"
  inner_product_param { num_output: 4 } }
layers { name: "softmax" type: SOFTMAX_LOSS bottom: "out" bottom: "label" top: "softmax" }
"""


def test_an_old_net_is_watched_as_todays(folder, command):
    """Of 2014 (`layers`), in a file; in the solver Caffe itself does not read it."""
    (folder / "net.prototxt").write_text(OLD)  # its weights are 0, and stay so
    slow = SOLVER.replace("0.02", "1e-9").replace("max_iter: 60", "max_iter: 240")
    (folder / "solver.prototxt").write_text(slow)
    status, _, err = command("train", "--solver", "solver.prototxt")
    assert (status, err.count("\n")) == (0, 1)
    assert "warning: iteration 200: softmax stands at ln 4 = 1.386" in err
    inside = slow.replace('net: "net.prototxt"', f"net_param {{ {OLD} }}")
    (folder / "solver.prototxt").write_text(inside)
    status, _, err = command("train", "--solver", "solver.prototxt")
    assert (status, err.count("\n")) == (1, 1)
    assert "net_param has `layers`, which Caffe reads from a file only" in err


def test_a_net_that_is_not_read_is_not_watched(folder):
    (folder / "net.prototxt").write_text("layers { layer { name: 'of 2013' type: 'data' } }")
    assert "a net of 2013" in read_plan("solver.prototxt").unread


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


def test_a_prefix_that_is_a_folder_takes_the_solvers_name(folder, command):
    (folder / "models").mkdir()
    solve(folder, ("small", "models"))
    assert read_plan("solver.prototxt").snapshot_prefix == "models/solver"
    status, out, _ = command("train", "--solver", "solver.prototxt")
    assert (status, "models/solver_iter_60.caffemodel" in out) == (0, True)
    solve(folder, ("small", "models"), ("max_iter: 60", "max_iter: 70"))
    assert command("train", "--solver", "solver.prototxt", "--resume")[0] == 0


def solve(folder, *changes):
    """Writes the solver with some words replaced."""
    text = SOLVER
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "solver.prototxt").write_text(text)


def test_a_resumed_training_says_the_whole_time_that_is_left(folder):
    last = 10_000_000
    solve(folder, ("max_iter: 60", f"max_iter: {last}"), ("snapshot: 30", "snapshot: 3000"))
    with Training("solver.prototxt") as training:
        while not training.status:
            training.poll()
            time.sleep(0.01)
    with Training("solver.prototxt", resume=True) as training:
        while not training.status:
            training.poll()
            time.sleep(0.01)
        status = training.status
    done = status["iteration"]
    assert 0 < done < last
    # The rate of this run, in images of 16 a batch, for the iterations that are left.
    assert status["left"] == pytest.approx(16 * (last - done) / status["images"], rel=1e-6)


def test_the_log_is_appended_to_and_read_as_one(folder, command):
    assert command("train", "--solver", "solver.prototxt")[0] == 0
    first = (folder / "small.log").read_text()
    solve(folder, ("max_iter: 60", "max_iter: 80"))
    assert command("train", "--solver", "solver.prototxt", "--resume")[0] == 0
    assert (folder / "small.log").read_text().startswith(first)
    assert read_log("small.log").train["loss"][0] == list(range(0, 80, 5))
    assert command("train", "--solver", "solver.prototxt")[0] == 0  # another, under the same name
    assert read_log("small.log").train["loss"][0] == list(range(0, 80, 5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--solver", "missing.prototxt"), "missing.prototxt"),
        (("--solver", "solver.prototxt", "--resume"), "no snapshot small_iter_N"),
        (("--solver", "solver.prototxt", "--weights", "w"), "w: no such file"),
        (("--solver", "wrong.prototxt"), "base_rl"),
        (("--solver", "lost.prototxt"), "nowhere.prototxt"),
        (("--solver", "bad.prototxt"), "Unknown bottom blob 'date'"),
        (("--solver", "prefix.prototxt"), "/proc/none/small: No such file or directory"),
        (("--solver", "solver.prototxt", "--snapshot", "s"), "s: no such file"),
    ],
)
def test_failures_are_one_line(folder, command, arguments, message):
    (folder / "wrong.prototxt").write_text(SOLVER.replace("base_lr", "base_rl"))
    (folder / "lost.prototxt").write_text(SOLVER.replace("net.prototxt", "nowhere.prototxt"))
    (folder / "prefix.prototxt").write_text(SOLVER.replace("small", "/proc/none/small"))
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_leaves_a_snapshot_and_no_orphan(folder, number):
    solve(folder, ("max_iter: 60", "max_iter: 100000000"), ("snapshot: 30", "snapshot: 0"))
    arguments = [sys.executable, "-m", "caffe_metric", "train", "--solver", "solver.prototxt"]
    process = subprocess.Popen(
        arguments, start_new_session=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    log = folder / "small.log"
    while not (log.exists() and "Iteration 100 " in log.read_text()):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # what a terminal does
    else:
        process.send_signal(number)  # to the parent alone
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1
    word = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
    assert err == f"caffe-metric train: {word}\n"
    (state,) = folder.glob("small_iter_*.solverstate")
    assert state.name in out
    assert not subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True).stdout


def test_no_hangup_ends_what_nohup_started(folder):
    solve(folder, ("max_iter: 60", "max_iter: 3000"))
    with Training("solver.prototxt") as training:
        pass  # stopped at once, with whatever it had
    program = "trap '' HUP; exec " + " ".join(
        [sys.executable, "-m", "caffe_metric", "train", "--solver", "solver.prototxt"]
    )
    process = subprocess.Popen(["sh", "-c", program], stdout=subprocess.PIPE, text=True)
    while not list(folder.glob("small_iter_*.json")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGHUP)
    out, _ = process.communicate(timeout=120)
    assert (process.returncode, "3000/3000" in out) == (0, True)
    assert training.plan.max_iter == 3000
