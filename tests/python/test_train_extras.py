"""`train --mine-every`, `--triplets`, `--eval-every`: what it does beside its iterations."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")

from caffe_metric.training.log import read_log
from caffe_metric.training.process import Training
from harness import need
from training_nets import FC, NORM, write

pytestmark = pytest.mark.slow  # each trains in a process of its own

TRAIN = ("train", "--solver", "solver.prototxt")
READER = """
layer { name: "data" type: "Python" top: "data" top: "label"
  python_param { module: "caffe_metric.layers" layer: "IdentityDataLayer"
    param_str: "{source: data.lmdb, layout: TRIPLETS, batch_size: 18, scale: 0.01, workers: 1}" } }
"""
GROUPS = """
layer { name: "triplet" type: "TripletLoss" bottom: "norm" top: "triplet" top: "on"
  triplet_loss_param { margin: 0.3 } }
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    need("cpp")
    return write(tmp_path, READER + FC + NORM + GROUPS, snapshot=10, max_iter=50)


def test_mined_triplets_are_the_same_after_a_resumption(folder):
    whole, parts = (write(folder / name, READER + FC + NORM + GROUPS, snapshot=10, max_iter=50)
                    for name in ("whole", "parts"))  # fmt: skip
    notes = finish(Training("solver.prototxt", folder=whole, mine_every=16))
    mined = [note for note in notes if "mined" in note]
    assert [note.split()[1] for note in mined] == ["0:", "16:", "32:", "48:"]
    with Training("solver.prototxt", folder=parts, mine_every=16) as training:
        while not training.snapshot or "iter_20" not in training.snapshot[0]:
            training.poll()
            time.sleep(0.001)
        training._child.kill()
    notes = finish(Training("solver.prototxt", folder=parts, mine_every=16, resume=True))
    assert len([note for note in notes if ": mined" in note]) in (1, 2)
    for name in ("iter_50.caffemodel", "iter_50.solverstate", "triplets_iter_48.npy"):
        assert (whole / f"small_{name}").read_bytes() == (parts / f"small_{name}").read_bytes()


def finish(training):
    notes = []
    with training:
        while not training.poll():
            time.sleep(0.01)
        notes += training.notes
    return notes


def test_from_extract_to_mine_to_train(folder, command):
    rng = np.random.default_rng(0)
    labels = np.arange(64) % 4
    np.savez("f.npz", embeddings=rng.normal(size=(64, 5)) + 2 * np.eye(5)[labels], labels=labels)
    mining = ("mine", "f.npz", "-o", "t.npy", "--negatives", "2", "--strategy", "vgg")
    assert command(*mining)[0] == 0
    assert np.load("t.npy").shape[1] == 4
    status, _, err = command(*TRAIN, "--triplets", "t.npy")
    assert (status, "16 rows" in err and "group size 3" in err) == (1, True), err
    (folder / "net.prototxt").write_text(
        READER + FC + NORM + GROUPS.replace("margin: 0.3", "margin: 0.3 num_negatives: 2")
    )
    assert command(*TRAIN, "--triplets", "t.npy")[0] == 0
    np.save("other.npy", np.load("t.npy") + 64)
    np.savez("several.npz", a=np.arange(3))
    np.save("flat.npy", np.arange(3))
    for name, text in (
        ("other.npy", "other.npy: is of another source"),
        ("several.npz", "several.npz: several arrays (.npz); an .npy file of one is needed"),
        ("flat.npy", "flat.npy: shape [3]: no triplets of `mine`"),
        ("net.prototxt", "net.prototxt: truncated, or no file of NumPy's"),
    ):
        status, _, err = command(*TRAIN, "--triplets", name)
        assert (status, err.count("\n"), text in err) == (1, 1, True), err


def test_a_full_disk_ends_neither_mining_nor_evaluation(folder, command):
    """Folders stand where the files would go: nobody can write them."""
    for name in (
        "small_best.caffemodel",
        "small_triplets_iter_0.npy",
        "small_triplets_iter_30.npy",
    ):
        (folder / name / "x").mkdir(parents=True)
    status, out, err = command(*TRAIN, "--eval-every", 25, "data.lmdb", "--mine-every", 30)
    assert status == 0
    assert "iteration 0: the best model could not be written: small_best.caffemodel: " in err
    assert "iteration 30: no mined triplets written" in out
    assert (folder / "small_iter_50.caffemodel").exists()


def test_the_best_model_on_held_out_images_is_kept(folder, command):
    status, out, err = command(*TRAIN, "--eval-every", 10, "data.lmdb")
    assert (status, err) == (0, "")
    curve = read_log("small.log").test["auc"]
    assert curve[0] == [0, 10, 20, 30, 40, 50]
    best = json.loads((folder / "small_best.json").read_text())
    assert best["auc"] == pytest.approx(max(curve[1]), abs=1e-5)
    assert best["auc"] > 0.8 > 0.5
    assert f"auc {curve[1][-1]:.3g}" in out
    assert (folder / "small_best.caffemodel").stat().st_size > 500
    assert command(*TRAIN, "--eval-every", 10, "nowhere.lmdb")[0] == 1
    status, _, err = command(*TRAIN, "--eval-every", "x", "data.lmdb")
    assert (status, "--eval-every: an integer" in err) == (1, True)
