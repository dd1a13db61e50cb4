"""Reading Caffe's training log, what `train` says about it, and `plot`.

The lines are those of Caffe 1.0, of an older Caffe, and of one whose numbers went bad.
"""

from __future__ import annotations

import math

import pytest
from caffe_metric.training.log import TrainingLog, read_log
from caffe_metric.training.watch import describe, duration

HEAD = "I1122 09:18:29.8 12224 "
LINES = [
    "solver.cpp:239] Iteration 0 (0 iter/s, 0.03s/20 iters), loss = 0.75",
    "solver.cpp:258]     Train net output #0: loss = 0.5 (* 1 = 0.5 loss)",
    "solver.cpp:258]     Train net output #1: active = 0.875",
    "sgd_solver.cpp:112] Iteration 0, lr = 0.01",
    "solver.cpp:347] Iteration 20, Testing net (#0)",
    "solver.cpp:414]     Test net output #0: accuracy = 0.25",
    "solver.cpp:414]     Test net output #1: recall = 0.5",
    "solver.cpp:414]     Test net output #2: recall = 0.75",
    "solver.cpp:239] Iteration 20, loss = 1.5e-05",
    "solver.cpp:258]     Train net output #0: loss = 0.25 (* 1 = 0.25 loss)",
    "solver.cpp:464] Snapshotting to binary proto file build/x_iter_20.caffemodel",
    "sgd_solver.cpp:284] Snapshotting solver state to binary proto file b/x_iter_20.solverstate",
    "data_layer.cpp:73] Restarting data prefetching from start.",
    "caffe.cpp:259] Optimization Done.",
]


def parse(lines):
    log = TrainingLog()
    for line in lines:
        log.read(HEAD + line + "\n")
    return log


def test_every_curve_is_read():
    log = parse(LINES)
    assert log.train == {
        "loss": ([0, 20], [0.75, 1.5e-05]),
        "loss output": ([0, 20], [0.5, 0.25]),
        "active": ([0], [0.875]),
        "lr": ([0], [0.01]),
    }
    assert log.test == {
        "accuracy": ([20], [0.25]),
        "recall": ([20], [0.5]),
        "recall #2": ([20], [0.75]),
    }
    assert log.snapshots == ["build/x_iter_20.caffemodel", "b/x_iter_20.solverstate"]
    assert (log.iteration, log.done, log.bad) == (20, True, None)


@pytest.mark.parametrize("word", ["nan", "-nan", "inf", "-inf"])
def test_a_number_that_is_not_finite_is_remembered(word):
    log = parse([*LINES, f"solver.cpp:258]     Train net output #1: active = {word}", *LINES[8:]])
    iteration, name, value = log.bad
    assert (iteration, name) == (20, "active")
    assert not math.isfinite(value)


def test_a_run_that_starts_again_takes_the_place_of_what_followed():
    start = "train.py:1] caffe-metric train: starts at iteration {} of 80, seed 1: command"
    log = parse([*LINES, start.format(20), *LINES[8:9]])
    assert log.train["loss"] == ([0, 20], [0.75, 1.5e-05])
    assert log.test == {}
    log = parse(
        [*LINES, "train.py:1] caffe-metric train: warning: a", start.format(0), *LINES[8:9]]
    )
    assert (log.train, log.warnings) == ({"loss": ([20], [1.5e-05])}, [])


def test_the_line_shows_what_the_layers_report():
    status = {"iteration": 20, "max_iter": 80, "loss": 1.5e-05, "reports": {"active": 0.875}}
    text = describe({**status, "images": 640.2, "left": 90.1})
    assert text == "20/80  loss 1.5e-05  active 0.875  640 images/s  90 s left"
    assert describe({**status, "iteration": 80, "left": 0}) == "80/80  loss 1.5e-05  active 0.875"
    assert describe({}, 80) == "0/80"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(99.4, "99 s"), (100, "2 min"), (5940, "99 min"), (6000, "1 h 40 min"), (180000, "2 d 2 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_plot_writes_a_picture_whole_or_not_at_all(tmp_path, command):
    log = tmp_path / "caffe.log"
    log.write_text("".join(HEAD + line + "\n" for line in LINES))
    assert read_log(log).train == parse(LINES).train
    for name in ("a.png", "sub/a.svg"):
        assert command("plot", log, "-o", tmp_path / name) == (0, "", "")
        assert (tmp_path / name).stat().st_size > 1000
    status, _, err = command("plot", log, "-o", tmp_path / "a.xyz")
    assert status == 1
    assert "xyz" in err
    assert {path.name for path in tmp_path.iterdir()} == {"caffe.log", "a.png", "sub"}


def test_plot_of_a_file_that_is_no_log(tmp_path, command):
    (tmp_path / "empty.log").write_text("nothing\n")
    status, _, err = command("plot", tmp_path / "empty.log", "-o", tmp_path / "a.png")
    assert status == 1
    assert "no `Iteration N, loss = X` lines" in err
    assert command("plot", tmp_path / "missing.log", "-o", tmp_path / "a.png")[0] == 1
