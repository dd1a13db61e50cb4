"""What rank 0 does while several ranks train: it mines, tests, writes the classes of all."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")

import training_nets as nets
from caffe_metric.training.log import read_log
from mpi_case import need_mpi, train, weights
from test_train_extras import GROUPS, READER

pytestmark = pytest.mark.slow  # starts of several processes

TEST = """
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { scale: 0.01 } data_param { source: "data.lmdb" batch_size: 16 backend: LMDB } }
"""
BATCH_NORM = """
layer { name: "bn" type: "BatchNorm" bottom: "fc" top: "bn" }
layer { name: "drop" type: "Dropout" bottom: "bn" top: "drop" }
"""
SOFTMAX = nets.SOFTMAX.replace('bottom: "fc"', 'bottom: "drop"')
LOSS = """
layer { name: "loss" type: "%s" bottom: "fc" bottom: "label" top: "loss" loss_weight: 1
  python_param { module: "caffe_metric.layers" layer: "%sLayer"
    param_str: "{num_output: 7, weight_filler: {type: xavier}%s}" } }
"""


def test_mined_triplets_and_held_out_images(tmp_path):
    need_mpi()
    net = READER + nets.FC + nets.NORM + GROUPS
    whole, parts = (
        nets.write(tmp_path / name, net, snapshot=10, max_iter=40) for name in ("whole", "parts")
    )
    arguments = ("--mine-every", "16", "--eval-every", "20", "data.lmdb")
    status, out, err = train(2, whole, *arguments)
    assert status == 0, err
    mined = [line.split()[1] for line in out.splitlines() if ": mined" in line]
    assert mined == ["0:", "16:", "32:"]
    assert (whole / "small_best.caffemodel").exists()
    nets.write(parts, net, snapshot=10, max_iter=20)
    assert train(2, parts, *arguments)[0] == 0
    nets.write(parts, net, snapshot=10, max_iter=40)
    assert train(2, parts, *arguments, "--resume")[0] == 0
    for name in ("iter_40.caffemodel", "iter_40.solverstate", "triplets_iter_32.npy"):
        assert (whole / f"small_{name}").read_bytes() == (parts / f"small_{name}").read_bytes()


def test_rank_0_tests_and_batch_norm_stays_the_same(tmp_path):
    need_mpi()
    reader = nets.DATA.replace('top: "label"', 'top: "label" include { phase: TRAIN }')
    folder = nets.write(
        tmp_path / "small",
        reader + TEST + nets.FC + BATCH_NORM + SOFTMAX,
        max_iter=20,
        display=1,  # the ranks' blobs are compared at each iteration
        test_iter=2,
        test_interval=10,
    )
    status, _, err = train(2, folder)
    assert status == 0, err
    log = read_log(folder / "small.log")
    assert log.test["softmax"][0] == [0, 10, 20]
    assert len(log.train["softmax"][0]) == 20
    assert weights(folder, 20, "small")["bn/2"] > 0


def test_shared_classes_start_from_a_model_and_go_on_with_more_ranks(tmp_path):
    need_mpi()
    folder = tmp_path / "small"
    nets.write(folder, nets.DATA + nets.FC + LOSS % ("Python", "MarginSoftmaxLoss", ""), max_iter=4)
    assert train(1, folder)[0] == 0
    model = weights(folder, 4, "small")
    sharded = nets.DATA + nets.FC + LOSS % ("Python", "ShardedMarginSoftmaxLoss", "")
    # A rate of 0 leaves all as it was.
    nets.write(folder, sharded, max_iter=1, base_lr=0)
    status, out, err = train(2, folder, "--weights", "small_iter_4.caffemodel")
    assert status == 0, err
    assert "small_iter_4.caffemodel: fills the classes of 'loss'" in out
    classes = np.load(folder / "small_iter_1_classes0.npy")
    np.testing.assert_allclose(classes[0], unit(model["loss/0"]), atol=1e-6)
    nets.write(folder, sharded, max_iter=20, base_lr=0.5)
    status, out, err = train(3, folder, "--resume")
    assert status == 0, err
    assert "written with 2 ranks, 3 go on" in out
    learned = np.load(folder / "small_iter_20_classes0.npy")
    assert learned.shape == (2, 7, 8)
    moved = np.abs(unit(learned[0]) - classes[0]).max(axis=1)
    assert (moved > 1e-3).all()
    assert read_log(folder / "small.log").last("loss") < 1.5


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
