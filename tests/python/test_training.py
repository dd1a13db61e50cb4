"""`caffe train`, from a solver file and an LMDB, lowers each loss; a snapshot goes on where it was.

The data are 4 classes of 6 numbers around a centre each, so a linear embedding can tell them
apart, and 150 iterations take a second. The tool is run as a user runs it, in a process of its own.
The nets of real images are the demo's.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from harness import need

TOOL = Path(sys.prefix) / "bin" / "caffe"
pytestmark = pytest.mark.skipif(not TOOL.is_file(), reason="no caffe tool here: ./run build")

HEAD = """
layer {{ name: "data" type: "Data" top: "data" top: "label"
  data_param {{ source: "{data}" batch_size: 32 backend: LMDB }} }}
layer {{ name: "embedding" type: "InnerProduct" bottom: "data" top: "embedding"
  inner_product_param {{ num_output: 3 weight_filler {{ type: "xavier" }} }} }}
"""
MARGIN = "num_output: 4, type: DOUBLE, base: 10, gamma: 0.05, lambda_min: 0.5"
NETS = {
    ("triplet", "cpp"): """
layer { name: "loss" type: "TripletLoss" bottom: "embedding" bottom: "label" top: "loss"
  triplet_loss_param { margin: 0.5 mining: ALL } }
""",
    ("triplet", "python"): """
layer { name: "loss" type: "Python" bottom: "embedding" bottom: "label" top: "loss" loss_weight: 1
  python_param { module: "caffe_metric.layers" layer: "TripletLossLayer"
    param_str: "{margin: 0.5, mining: ALL}" } }
""",
    ("rank", "cpp"): """
layer { name: "unit" type: "Norm" bottom: "embedding" top: "unit" }
layer { name: "loss" type: "RankHardLoss" bottom: "unit" bottom: "label" top: "loss"
  rank_param { neg_num: 4 pair_size: 2 margin: 0.3 } }
""",
    ("rank", "python"): """
layer { name: "unit" type: "Python" bottom: "embedding" top: "unit"
  python_param { module: "caffe_metric.layers" layer: "NormLayer" } }
layer { name: "loss" type: "Python" bottom: "unit" bottom: "label" top: "loss" loss_weight: 1
  python_param { module: "caffe_metric.layers" layer: "RankHardLossLayer"
    param_str: "{neg_num: 4, pair_size: 2, margin: 0.3}" } }
""",
    ("margin", "cpp"): """
layer { name: "fc" type: "MarginInnerProduct" bottom: "embedding" bottom: "label"
  top: "fc" top: "lambda"
  margin_inner_product_param { weight_filler { type: "xavier" } MARGIN } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
""".replace("MARGIN", MARGIN.replace(",", "")),
    ("margin", "python"): """
layer { name: "fc" type: "Python" bottom: "embedding" bottom: "label" top: "fc" top: "lambda"
  param { } param { lr_mult: 0 decay_mult: 0 }
  python_param { module: "caffe_metric.layers" layer: "MarginInnerProductLayer"
    param_str: "{weight_filler: {type: xavier}, MARGIN}" } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
""".replace("MARGIN", MARGIN),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """An LMDB of 64 records, pairs of a class in a row."""
    lmdb = pytest.importorskip("lmdb")
    from caffe.proto import caffe_pb2

    rng = np.random.default_rng(11)
    centres = rng.normal(size=(4, 6))
    path = tmp_path_factory.mktemp("training") / "data"
    with lmdb.open(str(path)) as environment, environment.begin(write=True) as writer:
        for number in range(64):
            label = number // 2 % 4
            values = centres[label] + 0.4 * rng.normal(size=6)
            datum = caffe_pb2.Datum(channels=6, height=1, width=1, label=label)
            datum.float_data.extend(values)
            writer.put(f"{number:04}".encode(), datum.SerializeToString())
    return path


def train(folder, data, net, *arguments, **solver):
    """Runs `caffe train`; returns its log."""
    folder.mkdir(exist_ok=True)
    (folder / "net.prototxt").write_text(HEAD.format(data=data) + NETS[net])
    settings = {
        "net": f'"{folder}/net.prototxt"',
        "base_lr": 0.05,
        "momentum": 0.9,
        "lr_policy": '"fixed"',
        "max_iter": 150,
        "display": 10,
        "random_seed": 3,
        "snapshot_prefix": f'"{folder}/model"',
        **solver,
    }
    path = folder / "solver.prototxt"
    path.write_text("".join(f"{key}: {value}\n" for key, value in settings.items()))
    done = subprocess.run(
        [TOOL, "train", "-solver", path, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "GLOG_minloglevel": "0", "GLOG_logtostderr": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def tops(log, name):
    """The values of a top, as the log shows them."""
    return [float(value) for value in re.findall(rf"Train net output #\d+: {name} = (\S+)", log)]


@pytest.mark.parametrize("engine", ["cpp", "python"])
@pytest.mark.parametrize("loss", ["triplet", "rank", "margin"])
@pytest.mark.slow
def test_the_loss_falls(tmp_path, data, loss, engine):
    need(engine)
    log = train(tmp_path, data, (loss, engine))
    losses = tops(log, "loss")
    assert len(losses) == 15
    assert np.isfinite(losses).all()
    assert np.mean(losses[-3:]) < 0.6 * np.mean(losses[:2]), losses
    assert (tmp_path / "model_iter_150.caffemodel").is_file()


FOLDERS = ("whole", "parts")


def blobs(model):
    """The weights in a caffemodel."""
    from caffe.proto import caffe_pb2

    net = caffe_pb2.NetParameter.FromString(model.read_bytes())
    found = [blob for layer in net.layer for blob in layer.blobs]
    return [np.array(blob.data, np.float32).reshape(blob.shape.dim) for blob in found]


@pytest.mark.parametrize("engine", ["cpp", "python"])
@pytest.mark.slow
def test_a_resumed_training_is_the_one_that_went_on(tmp_path, data, engine):
    """100 iterations, and 50 more in another process, are 150 in one: lambda, losses, weights.

    The data are two batches, so that both read the same at iteration 100.
    """
    need(engine)
    whole = train(tmp_path / "whole", data, ("margin", engine))
    train(tmp_path / "parts", data, ("margin", engine), max_iter=100)
    state = tmp_path / "parts" / "model_iter_100.solverstate"
    rest = train(tmp_path / "parts", data, ("margin", engine), f"--snapshot={state}")
    resumed, expected = tops(rest, "lambda"), tops(whole, "lambda")
    assert len(resumed) == 5
    assert expected[0] > 2 * expected[-1]
    assert resumed == expected[-5:]
    assert tops(rest, "loss") == tops(whole, "loss")[-5:]
    ours, theirs = (blobs(tmp_path / name / "model_iter_150.caffemodel") for name in FOLDERS)
    assert [blob.shape for blob in ours] == [(3, 6), (3,), (4, 3), (1,)]
    for one, other in zip(ours, theirs):
        np.testing.assert_array_equal(one, other)
    assert ours[-1] == 150
