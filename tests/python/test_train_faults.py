"""What goes wrong in a training, and what `train` says of it: one line, and nothing is lost.

Each test stands for a kind of fault; the trainings are real ones, of a net that takes a second.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time

import pytest

pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")

from caffe_metric.support.errors import UserError
from caffe_metric.training import snapshots
from caffe_metric.training.process import Training
from harness import need
from training_nets import DATA, FC, MARGIN, NORM, POINT, SOFTMAX, TRIPLET, ZERO, write

pytestmark = pytest.mark.slow  # each trains in a process of its own

TRAIN = ("train", "--solver", "solver.prototxt")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    need("cpp")
    return write(tmp_path)


def fails(command, *arguments):
    """The one line of a training that fails."""
    status, _, err = command(*TRAIN, *arguments)
    lines = [line for line in err.splitlines() if ": warning: " not in line]
    assert (status, len(lines)) == (1, 1), err
    return lines[0].partition("caffe-metric train: ")[2]


EUCLIDEAN = """
layer { name: "half" type: "Power" bottom: "fc" top: "half" power_param { scale: 0.5 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "fc" bottom: "half" top: "loss"
  loss_weight: 1000 }
"""

# --- Numbers that are not finite -----------------------------------------------------------------


def test_the_layer_is_named_in_which_a_number_stops_being_finite(folder, command):
    # A feature overflows in the second of two layers that work in place.
    power = 'layer {{ name: "{0}" type: "Power" bottom: "fc" top: "fc" power_param {{ {1} }} }}\n'
    powers = power.format("small", "scale: 2") + power.format("large", "scale: 1e30 power: 3")
    write(folder, DATA + FC + powers + EUCLIDEAN, display=0)
    line = fails(command)
    assert line.startswith("iteration 0: top 'fc' of layer 'large' (Power) holds "), line
    assert line.endswith("; stopped")


def test_the_weights_are_named_that_an_update_made_infinite(folder, command):
    write(folder, DATA + FC + EUCLIDEAN, base_lr="3e38")
    assert "blob 0 (weights) of layer 'fc' (InnerProduct) holds" in fails(command)


def test_a_loss_of_ours_does_not_end_the_process_before_the_layer_is_named(folder, command):
    log = 'layer { name: "log" type: "Log" bottom: "norm" top: "log" }\n'
    write(folder, DATA + FC + NORM + log + TRIPLET.replace('bottom: "norm"', 'bottom: "log"'))
    assert fails(command).startswith("iteration 0: top 'log' of layer 'log' (Log) holds nan")


def test_a_softmax_that_overflows_to_the_end_has_failed(folder, command):
    noise = (
        'layer { name: "noise" type: "DummyData" top: "fc" dummy_data_param { '
        'shape { dim: 16 dim: 5 } data_filler { type: "gaussian" } } }'
    )
    write(folder, DATA + noise + SOFTMAX, base_lr="1e20", max_iter=40)
    status, _, err = command(*TRAIN)
    assert status == 1
    assert "softmax stands near 87.34: the softmax overflows" in err
    assert "docs/troubleshooting.md" in err
    assert err.splitlines()[-1].endswith("iteration 40: ended with a loss that overflows")


# --- Embeddings in one point ---------------------------------------------------------------------

RANK = (
    'layer {{ name: "rank" type: "RankHardLoss" bottom: "norm" bottom: "label" {0} '
    "rank_hard_loss_param {{ neg_num: 4 pair_size: 2 margin: 0.3 }} }}"
)
PYTHON = (
    'layer { name: "triplet" type: "Python" bottom: "norm" bottom: "label" top: "triplet" '
    'loss_weight: 1 python_param { module: "caffe_metric.layers" layer: "TripletLossLayer" '
    'param_str: "{margin: 0.3, mining: ALL}" } }'
)


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        (TRIPLET, "triplet"),
        (RANK.format('top: "rank"'), "rank"),
        (RANK.format(""), "rank"),
        (PYTHON, "triplet"),
    ],
    ids=["TripletLoss", "older field", "no top", "Python layer"],
)
def test_a_collapse_is_said_however_the_loss_is_written_and_however_short(
    folder, command, loss, name
):
    net = DATA + ZERO + POINT + NORM + loss
    if name == "rank":  # batches of pairs
        net = net.replace('source: "data.lmdb"', 'source: "pairs.lmdb"')
        pairs_database(folder)
    write(folder, net, max_iter=4, display=0)
    status, _, err = command(*TRAIN)
    assert status == 0
    assert f"warning: iteration 4: {name} stands at its value for equal embeddings" in err
    assert err.count("\n") == 1


def pairs_database(folder):
    from caffe_metric.data.lmdb_file import read_lmdb, write_lmdb

    records = list(read_lmdb(folder / "data.lmdb"))
    # Labels go round from record to record: 0, 4, 1, 5 ... are 0, 0, 1, 1 ...
    order = [8 * (k // 8) + k % 8 // 2 + 4 * (k % 2) for k in range(64)]
    write_lmdb(folder / "pairs.lmdb", [records[k] for k in order])


# --- Python layers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("nowhere", "ModuleNotFoundError: No module named 'nowhere'"),
        ("early", "ValueError: early in setup"),
        ("late", "KeyError: 'late in forward'"),
    ],
)
def test_the_exception_of_a_python_layer_is_shown(folder, command, module, words):
    (folder / "early.py").write_text(
        "import caffe\nclass L(caffe.Layer):\n"
        "  def setup(self, bottom, top): raise ValueError('early in setup')\n"
    )
    (folder / "late.py").write_text(
        "import caffe\nclass L(caffe.Layer):\n"
        "  def setup(self, bottom, top): pass\n"
        "  def reshape(self, bottom, top): top[0].reshape(1)\n"
        "  def forward(self, bottom, top): raise KeyError('late in forward')\n"
    )
    layer = (
        'layer { name: "p" type: "Python" bottom: "fc" top: "p" '
        f'python_param {{ module: "{module}" layer: "L" }} }}'
    )
    write(folder, DATA + FC + layer)
    assert fails(command) == words


# --- Weights -------------------------------------------------------------------------------------


def test_weights_fill_the_layers_they_have(folder, command):
    """Softmax first, then a margin: the usual way. Two models fill one net."""
    write(folder, DATA + FC + SOFTMAX)
    assert command(*TRAIN)[0] == 0
    write(folder, DATA + FC + MARGIN, snapshot_prefix='"margin"', max_iter=10)
    status, out, _ = command(*TRAIN, "--weights", "small_iter_60.caffemodel")
    assert status == 0
    assert "small_iter_60.caffemodel: fills 'fc'\n" in out
    assert "has no weights of 'margin': they start anew" in out
    older = MARGIN.replace("num_output: 4", "num_output: 4 persist_iteration: false")
    write(folder, DATA + FC + older)
    both = "small_iter_60.caffemodel,margin_iter_10.caffemodel"
    status, out, _ = command(*TRAIN, "--weights", both)
    assert status == 0
    assert "margin_iter_10.caffemodel: fills 'fc', 'margin'\n" in out


@pytest.mark.parametrize(
    ("net", "line"),
    [
        (DATA + FC.replace("num_output: 8", "num_output: 9") + NORM + TRIPLET,
         "small_iter_60.caffemodel: blob 0 of layer 'fc' is 8 x 25, 9 x 25 in the net: another "
         "name lets the layer start anew"),
        (DATA + FC.replace('name: "fc"', 'name: "other"') + NORM + TRIPLET,
         "small_iter_60.caffemodel: is of another net: it has weights of 'fc', the net of 'other'"),
        (DATA + FC.replace('name: "fc"', 'name: "norm"') + NORM.replace('"norm" type', '"fc" type')
         + TRIPLET,
         "small_iter_60.caffemodel: layer 'norm' has 0 blobs, 2 in the net: another name lets the "
         "layer start anew"),
    ],
)  # fmt: skip
def test_a_model_of_another_net(folder, command, net, line):
    assert command(*TRAIN)[0] == 0
    write(folder, net, max_iter=70, snapshot_prefix='"another"')
    assert fails(command, "--weights", "small_iter_60.caffemodel") == line
    write(folder, net, max_iter=70)
    before = (folder / "small_iter_60.caffemodel").read_bytes()
    assert fails(command, "--resume").startswith("small_iter_60.caffemodel: ") or "other" in line
    assert (folder / "small_iter_60.caffemodel").read_bytes() == before


def test_another_kind_of_solver_cannot_go_on(folder, command):
    assert command(*TRAIN)[0] == 0
    write(folder, max_iter=70, type='"Adam"')
    assert "of another kind of solver (2 blobs of history, 4 wanted)" in fails(command, "--resume")


# --- Snapshots -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda path: path.write_bytes(b""), "has 0 bytes"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"), "checksum"),
        (lambda path: path.unlink(), "No such file"),
    ],
)
@pytest.mark.parametrize("suffix", ["caffemodel", "solverstate"])
def test_a_torn_snapshot_is_passed_over(folder, harm, told, suffix):
    with Training("solver.prototxt") as training:
        while not training.poll():
            time.sleep(0.01)
    harm(folder / f"small_iter_60.{suffix}")
    said = []
    found = snapshots.newest_whole("small", said.append)
    assert found.iteration == 30
    assert f"passed over the snapshot of iteration 60: small_iter_60.{suffix}" in said[0]
    assert told in said[0]
    (folder / "small_iter_30.json").unlink()
    with pytest.raises(UserError, match=r"no snapshot small_iter_N .*--snapshot takes it"):
        snapshots.newest_whole("small", said.append)


def test_a_training_that_began_anew_is_newer_than_higher_numbers(folder, command):
    assert command(*TRAIN)[0] == 0
    write(folder, max_iter=30)
    assert command(*TRAIN)[0] == 0
    assert [one.iteration for one in snapshots.find("small")] == [30, 60]


def test_snapshots_go_on_in_another_folder(folder, command, monkeypatch):
    """On another machine: the solver state says where its model was."""
    assert command(*TRAIN)[0] == 0
    elsewhere = folder / "elsewhere"
    write(elsewhere, max_iter=70)
    for path in folder.glob("small_iter_60.*"):
        shutil.move(str(path), elsewhere)
    monkeypatch.chdir(elsewhere)
    status, out, _ = command(*TRAIN, "--resume")
    assert (status, "70/70" in out) == (0, True)
    write(elsewhere, max_iter=80)
    shutil.move("small_iter_70.solverstate", "x.solverstate")
    assert command(*TRAIN, "--snapshot", "x.solverstate")[0] == 0
    (elsewhere / "small_iter_70.caffemodel").unlink()
    assert "its model small_iter_70.caffemodel is not beside" in fails(
        command, "--snapshot", "x.solverstate"
    )


def test_a_snapshot_of_caffe_itself_has_no_record(folder, command):
    """`caffe train` goes on working with the same nets, and its snapshots here."""
    tool = os.path.join(sys.prefix, "bin", "caffe")
    if not os.path.exists(tool):
        pytest.skip("no caffe tool here: ./run build")
    subprocess.run([tool, "train", "-solver", "solver.prototxt"], check=True, capture_output=True)
    write(folder, max_iter=70)
    assert "small_iter_60.solverstate has none, --snapshot takes it" in fails(command, "--resume")
    assert command(*TRAIN, "--snapshot", "small_iter_60.solverstate")[0] == 0


def test_two_trainings_of_one_prefix(folder, command, monkeypatch):
    monkeypatch.setattr(snapshots, "LOCK_SECONDS", 0.2)
    with snapshots.Prefix("small"):
        assert fails(command) == "small: another training writes snapshots of this name"
    assert command(*TRAIN)[0] == 0


def test_a_full_disk_loses_nothing(folder):
    """No file may be larger than 64 KiB here, as none is on a full disk."""
    write(folder, DATA + FC.replace("8", "2000") + NORM + TRIPLET, max_iter=30, snapshot=10)
    ran = subprocess.run(
        [sys.executable, "-m", "caffe_metric", *TRAIN],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16)),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 1
    lines = ran.stderr.splitlines()
    assert "iteration 10: no snapshot: File too large; the training goes on" in lines[0]
    assert lines[-1] == "caffe-metric train: iteration 30: no snapshot: File too large"
    assert list(folder.glob("*small_iter*")) == []


def test_a_folder_that_goes_away(folder, command):
    write(folder, max_iter=3000, snapshot=3000, snapshot_prefix='"models/small"')
    with Training("solver.prototxt") as training:
        while not training.status:
            training.poll()
            time.sleep(0.01)
        shutil.rmtree(folder / "models")
        with pytest.raises(UserError, match="iteration 3000: no snapshot: No such file"):
            while not training.poll():
                time.sleep(0.01)
