"""`caffe-metric preset`: what it writes, and that each way to train learns from real images.

The images are Fashion-MNIST's (the digits' where it is not installed), 300 of each of seven
classes; what is measured is verification on test images of three classes that no net has seen.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")

from caffe_metric.data import datum
from caffe_metric.data.identity.source import open_images
from caffe_metric.data.lmdb_file import write_lmdb
from caffe_metric.demo.images import UNSEEN, load_images
from caffe_metric.evaluation.extraction import extract
from caffe_metric.evaluation.metrics.retrieval import retrieve
from caffe_metric.evaluation.metrics.similarity import unit_rows
from caffe_metric.evaluation.metrics.verification import roc
from caffe_metric.nets import netfile
from caffe_metric.training.presets import PRESETS, scale_of
from caffe_metric.training.trunks import read_trunk
from harness import need

ITERATIONS = 240
TRUNK = """
layer { name: "input" type: "Input" top: "data"
  input_param { shape { dim: 1 dim: 1 dim: 28 dim: 28 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 12 kernel_size: 5 stride: 2 weight_filler { type: "msra" } } }
layer { name: "bn1" type: "BatchNorm" bottom: "conv1" top: "conv1" }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2"
  convolution_param { num_output: 24 kernel_size: 3 stride: 2 weight_filler { type: "msra" } } }
layer { name: "relu2" type: "ReLU" bottom: "conv2" top: "conv2" }
layer { name: "embedding" type: "InnerProduct" bottom: "conv2" top: "embedding"
  inner_product_param { num_output: 32 weight_filler { type: "xavier" } } }
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with the trunk, seen.lmdb to train on, and the test images seen and unseen."""
    folder = tmp_path_factory.mktemp("presets")
    images = load_images()
    seen = [one for one in range(10) if one not in UNSEEN]
    (folder / "trunk.prototxt").write_text(TRUNK)
    put(images.train, seen, folder / "train.lmdb", 300)
    put(images.test, seen, folder / "seen.lmdb", 60)
    put(images.test, UNSEEN, folder / "unseen.lmdb", 150)
    return folder


@pytest.fixture(scope="module")
def floor(data):
    """The least AUC on the unseen classes: more than the images have as they are.

    The digits, of which there are few, are nearly told apart by their pixels.
    """
    if load_images().title != "Fashion-MNIST":
        return 0.7
    source = open_images(data / "unseen.lmdb")
    rows = np.stack([source.load(row).ravel() for row in range(len(source.labels))])
    return auc_of(unit_rows(rows.astype(np.float32)), source.labels) + 0.05


def auc_of(unit, labels):
    upper = np.triu_indices(len(labels), 1)
    return roc((unit @ unit.T)[upper], labels[upper[0]] == labels[upper[1]]).auc()


def put(source, classes, path, count):
    rows = [np.flatnonzero(source.labels == one)[:count] for one in classes]
    labels = {one: number for number, one in enumerate(classes)}
    write_lmdb(
        path,
        (
            ("", datum.encode(source.load(k), labels[source.labels[k]]))
            for k in np.concatenate(rows)
        ),
    )


def embeddings(folder, run, what):
    solver = (folder / run / "solver.prototxt").read_text()
    prefix = re.search(r'snapshot_prefix: "(.*)"', solver)[1]
    last = re.search(r"max_iter: (\d+)", solver)[1]
    model = f"{prefix}_iter_{last}.caffemodel"
    found, labels, _ = extract(
        str(folder / run / "net.prototxt"), model, str(folder / what), "embedding"
    )
    return unit_rows(found), labels


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PRESETS))
def test_each_way_learns_real_images(data, floor, command, name):
    need("cpp")
    options = ("--scale", "0.00390625", "--batch", "48", "--iterations", ITERATIONS)
    status, out, err = command(
        "preset", name, "--trunk", data / "trunk.prototxt", "--data", data / "train.lmdb",
        "-o", data / name, *options,
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert "7 classes, 2100 images" in out
    solvers = re.findall(r"caffe-metric train --solver (\S+)", out)
    assert len(solvers) == len(PRESETS[name].stages)
    assert solvers[-1].endswith("/solver.prototxt")
    for solver in solvers:
        status, _, err = command("train", "--solver", solver, "--threads", "1")
        assert (status, err) == (0, "")
    auc = auc_of(*embeddings(data, name, "unseen.lmdb"))
    unit, labels = embeddings(data, name, "seen.lmdb")
    recall = retrieve(unit, labels, (1,))["recall_at"][1]
    assert auc > floor, (auc, floor)
    assert recall > 0.7, recall


def write_preset(command, data, name, *options):
    status, _, err = command(
        "preset", name, "--trunk", data / "trunk.prototxt", "--data", data / "train.lmdb",
        "-o", data / "written", *options,
    )  # fmt: skip
    assert (status, err) == (0, "")
    return data / "written"


@pytest.mark.slow
def test_train_takes_a_preset(data, command):
    """Both stages, one after another, as the two commands would."""
    trunk = ("--trunk", data / "trunk.prototxt", "--data", data / "train.lmdb", "--threads", "1")
    options = ("--batch", "16", "--iterations", "8", "-o", data / "both")
    status, out, err = command("train", "--preset", "softmax-then-triplet", *trunk, *options)
    assert (status, err) == (0, "")
    assert out.count("caffe-metric train --solver") == 2
    assert (data / "both" / "softmax_iter_4.caffemodel").exists()
    assert (data / "both" / "triplet_iter_4.caffemodel").exists()
    assert "softmax_iter_4.caffemodel: fills 'conv1', 'bn1', 'conv2', 'embedding'\n" in out


def test_train_takes_a_preset_whole(data, command):
    for arguments, message in (
        (("--preset", "arcface"), "--preset needs --trunk NET.prototxt and -o DIR"),
        (("--solver", "s.prototxt", "-o", "x"), "-o go with --preset"),
        (("--preset", "arcface", "--trunk", "t", "-o", "x", "--resume"), "go on by --solver x/"),
    ):
        status, _, err = command("train", *arguments)
        assert (status, err.count("\n")) == (1, 1)
        assert message in err


def test_lambda_comes_down_at_half_of_the_iterations(data, command):
    folder = write_preset(command, data, "a-softmax", "--iterations", "1000")
    (layer,) = (
        layer
        for layer in netfile.read(str(folder / "net.prototxt")).layer
        if layer.type == "MarginInnerProduct"
    )
    param = layer.margin_inner_product_param
    half = param.base * (1 + param.gamma * 500) ** -param.power
    assert half == pytest.approx(param.lambda_min, rel=1e-3)


def test_a_presets_net_lints_and_knows_its_window(data, command):
    for name in PRESETS:
        folder = write_preset(command, data, name, "--iterations", "2000")
        net = folder / "net.prototxt"
        status, out, _ = command("lint", net, "--solver", folder / "solver.prototxt")
        assert status == 0, out
        assert "BatchNorm" not in out
        assert "moving_average_fraction: 0.9" in net.read_text()


def test_the_scale_grows_with_the_classes():
    scales = [scale_of(classes) for classes in (2, 10, 1000, 85742, 10**7)]
    assert scales == sorted(scales)
    assert scales[0] >= 8
    assert scales[3:] == [64, 64]


@pytest.mark.parametrize(
    ("options", "rates"),
    [
        (("--iterations", "400"), [0.003, 0.0009]),
        (("--iterations", "400", "--rate", "0.02"), [0.02, 0.006]),
        (("--iterations", "400", "--classes", "15"), [0.005, 0.0025]),
        (("--iterations", "400", "--classes", "30"), [0.01, 0.01]),
        (("--iterations", "4000", "--classes", "900"), [0.01, 0.0025]),
        (("--iterations", "90000", "--classes", "900"), [0.01, 0.001]),
    ],
)
def test_few_classes_and_second_stages_learn_slowly(data, command, options, rates):
    folder = write_preset(command, data, "arcface", *options)
    found = [
        float(re.search("base_lr: (.*)", (folder / name).read_text())[1])
        for name in ("1_solver.prototxt", "solver.prototxt")
    ]
    assert found == pytest.approx(rates)


def test_only_an_annealed_lambda_is_shown(data, command):
    for name in ("arcface", "a-softmax"):
        text = (write_preset(command, data, name) / "net.prototxt").read_text()
        assert ('top: "lambda"' in text) == (name == "a-softmax")


def test_trunks_of_training_nets(data, tmp_path):
    """Data, losses and heads go; the embedding is what the head reads."""
    plain = read_trunk(data / "trunk.prototxt")
    assert (plain.blob, plain.embedding) == ("data", "embedding")
    assert plain.picture == {"height": 28, "width": 28, "gray": True}
    reader = (
        'layer { name: "d" type: "Data" top: "data" top: "label" transform_param { scale: 0.5 '
        'mean_value: 3 crop_size: 24 mirror: true } data_param { source: "x.lmdb" } }\n'
    )
    body = TRUNK.partition("\n  input_param")[2].partition("\n")[2]
    norm = 'layer { name: "n" type: "Norm" bottom: "embedding" top: "unit" }\n'
    softmax = (
        'layer { name: "fc" type: "InnerProduct" bottom: "embedding" top: "fc" }\n'
        'layer { name: "l" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "l" }\n'
    )
    triplet = 'layer { name: "l" type: "TripletLoss" bottom: "unit" bottom: "label" top: "l" }\n'
    for head in (norm + triplet, softmax):
        (tmp_path / "net.prototxt").write_text(reader + body + head)
        trunk = read_trunk(tmp_path / "net.prototxt")
        assert [layer.name for layer in trunk.layers] == [layer.name for layer in plain.layers]
        assert (trunk.embedding, trunk.source) == ("embedding", "x.lmdb")
        assert trunk.picture == {"scale": 0.5, "mean_value": [3], "crop_size": 24, "mirror": True}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--embedding", "nowhere"), "no layer makes the blob 'nowhere'"),
        (("--data", "/no/such.lmdb"), "/no/such.lmdb: no such file or folder"),
        ((), "reads no data itself: say by --data what to train on"),
    ],
)
def test_failures_are_one_line(data, command, arguments, message):
    trunk = ("--trunk", data / "trunk.prototxt", "-o", data / "never")
    status, _, err = command("preset", "arcface", *trunk, *arguments)
    assert (status, err.count("\n")) == (1, 1)
    assert message in err
    assert not (data / "never").exists()
