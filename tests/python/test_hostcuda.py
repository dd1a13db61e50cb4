"""The GPU layers, host-emulated: the same bits in any thread order, and training by solver file.

Two runs in different orders of blocks and threads, and with different rubbish in fresh memory,
have to write the same hashes; METRIC_BITS is what tests/cpp/test_gpu_parity.cpp writes them to.
"""

from __future__ import annotations

import re
import shlex

import numpy as np
import pytest
from hostcuda_build import BUILD, need_hostcuda, run

pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")

from caffe_metric import suite
from caffe_metric.data import datum
from caffe_metric.data.lmdb_file import write_lmdb
from caffe_metric.training.process import caffe_tool

need_hostcuda()

DATA = """
layer { name: "data" type: "Data" top: "data" top: "label" transform_param { scale: 0.01 }
  data_param { source: "data.lmdb" batch_size: 16 backend: LMDB } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 2 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "fc" type: "InnerProduct" bottom: "pool" top: "fc"
  inner_product_param { num_output: 6 weight_filler { type: "xavier" } } }
"""
NORM = 'layer { name: "norm" type: "Norm" bottom: "fc" top: "norm" }'
HEADS = {
    "triplet": NORM
    + """
layer { name: "loss" type: "TripletLoss" bottom: "norm" bottom: "label" top: "loss"
  triplet_loss_param { margin: 0.3 mining: SEMIHARD } loss_param { normalization: NONE } }
""",
    "rank": NORM
    + """
layer { name: "loss" type: "RankHardLoss" bottom: "norm" bottom: "label" top: "loss"
  rank_param { neg_num: 4 margin: 0.3 } }
""",
    "margin": """
layer { name: "ip" type: "MarginInnerProduct" bottom: "fc" bottom: "label" top: "ip" top: "lambda"
  margin_inner_product_param { num_output: 4 type: DOUBLE base: 10 gamma: 0.1
    weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
""",
}
SOLVER = """
net: "net.prototxt" base_lr: 0.05 lr_policy: "fixed" momentum: 0.9 max_iter: 60 display: 1
snapshot_after_train: false random_seed: 3
"""


@pytest.mark.slow
def test_any_order_gives_the_same_bits(tmp_path):
    orders = {
        "ascending": {"HOSTCUDA_ORDER": "0", "HOSTCUDA_POISON": "0xFF"},
        "shuffled": {
            "HOSTCUDA_ORDER": "7",
            "HOSTCUDA_POISON": "0xCD",
            "HOSTCUDA_GUARD": "start",
            "HOSTCUDA_PAGE": "65536",
        },
    }
    hashes = {}
    for name, environment in orders.items():
        bits = tmp_path / name
        done = run(
            BUILD / "metric_test", "--gtest_filter=GpuParityTest*", METRIC_BITS=bits, **environment
        )
        assert done.returncode == 0, done.stdout[-2000:]
        hashes[name] = bits.read_text().splitlines()
    assert len(hashes["ascending"]) > 200
    assert hashes["ascending"] == hashes["shuffled"]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"HOSTCUDA_ORDER": "5", "HOSTCUDA_POISON": "0xCD"},
        {"HOSTCUDA_GUARD": "start"},
        {"HOSTCUDA_PAGE": "65536"},
        {"HOSTCUDA_PAGE": "65536", "HOSTCUDA_GUARD": "start"},
    ],
    ids=lambda environment: " ".join(environment.values()) or "default",
)
def test_the_emulation_traps_what_a_gpu_would_not_forgive(environment):
    done = run(BUILD / "hostcuda_test", **environment)
    assert done.returncode == 0, done.stdout[-2000:]
    assert re.search(r"\[  PASSED  \] 25 tests", done.stdout)


# Of a forward or a backward of one strip.
MOST_LAUNCHES = 8


def test_launches_are_few():
    done = run(BUILD / "gpu_counts", "64", "64", "512", GLOG_minloglevel="2")
    assert done.returncode == 0, done.stderr[-2000:]
    found = re.findall(
        r"^(\w.*?) +(forward|backward) +(\d+) +(\d+) +(\d+) +(\d+)", done.stdout, re.M
    )
    assert {re.match(r"\w+", row[0]).group() for row in found} == {x.type for x in suite.NATIVE}
    for layer, direction, launches, *_, moved in found:
        assert 0 < int(launches) <= MOST_LAUNCHES, (layer, direction)
        assert int(moved) > 0


def test_few_addresses_are_enough():
    """As on a system, or under a limit, that has less than 1 TiB of them."""
    limited = "ulimit -v 8388608 && exec " + shlex.quote(str(BUILD / "hostcuda_test"))
    done = run("sh", "-c", limited)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.fixture
def images(tmp_path, rng):
    """A folder with 64 images of four classes, in pairs."""
    labels = np.repeat(np.arange(32) % 4, 2)
    patterns = rng.integers(0, 120, (4, 1, 7, 7))[labels]
    pixels = (patterns + rng.integers(0, 90, patterns.shape)).astype(np.uint8)
    records = [("", datum.encode(image, int(label))) for image, label in zip(pixels, labels)]
    write_lmdb(tmp_path / "data.lmdb", records)
    return tmp_path


def train(tool, mode, folder):
    (folder / "solver.prototxt").write_text(SOLVER + f"solver_mode: {mode}\n")
    done = run(str(tool), "train", "--solver=solver.prototxt", cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    return np.array(re.findall(r"Iteration \d+ .*, loss = (\S+)", done.stderr), float)


@pytest.mark.parametrize("head", HEADS)
def test_gpu_mode_trains_as_the_cpu_does(head, images):
    (images / "net.prototxt").write_text(DATA + HEADS[head])
    on_cpu = train(caffe_tool(), "CPU", images)
    on_gpu = train(BUILD / "caffe", "GPU", images)
    assert len(on_gpu) == len(on_cpu) >= 60
    # Rounding grows as a training goes on.
    np.testing.assert_allclose(on_gpu[:10], on_cpu[:10], rtol=1e-3, atol=1e-5)
    assert np.mean(on_gpu[-5:]) < 0.5 * np.mean(on_gpu[:5])
