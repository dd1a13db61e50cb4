"""The older module names: a prototxt that was written for them trains unchanged."""

from __future__ import annotations

import importlib
import sys
import types

import numpy as np
import pytest

pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")

from caffe_metric.support import paths
from harness import build, inputs
from oracle import norm as norm_oracle
from oracle import triplet as oracle
from PIL import Image

import caffe

RNG = np.random.default_rng(9)

NET = """
name: "older"
layer { name: "data" type: "Python" top: "data" top: "labels"
  python_param { module: "datalayer" layer: "DataLayer" } }
layer { name: "features" type: "InnerProduct" bottom: "data" top: "features"
  inner_product_param { num_output: 6 weight_filler { type: "xavier" } } }
layer { name: "norm2" type: "Python" bottom: "features" top: "norm2"
  python_param { module: "norm2layer" layer: "Norm2Layer" } }
layer { name: "select" type: "Python" bottom: "norm2" bottom: "labels"
  top: "archor" top: "positive" top: "negative"
  python_param { module: "tripletselectlayer" layer: "TripletSelectLayer" } }
layer { name: "tripletloss" type: "Python" bottom: "archor" bottom: "positive" bottom: "negative"
  top: "loss" loss_weight: 1
  python_param { module: "tripletlosslayer" layer: "TripletLayer" param_str: "'margin': 0.2" } }
"""


@pytest.fixture
def config(monkeypatch, tmp_path):
    """The settings of a project with 4 persons of 6 images, each person of a colour."""
    config = types.ModuleType("config")
    monkeypatch.setitem(sys.modules, "config", config)
    lines = []
    for person in range(4):
        for number in range(6):
            name = f"person{person}@{number}.png"
            noise = RNG.integers(0, 200, size=(9, 9, 3))
            colour = noise + 15 * (np.arange(3) == person % 3) + 20 * (person == 3)
            Image.fromarray(colour.astype(np.uint8)).save(tmp_path / name)
            lines.append(f"{name} {person}\n")
    (tmp_path / "train.txt").write_text("".join(lines))
    settings = {
        "IMAGE_LIST": str(tmp_path / "train.txt"),
        "IMAGEPATH": "",
        "BATCH_SIZE": 18,
        "IMAGE_SIZE": 8,
        "PIXEL_MEANS": np.array([[[105.0, 105.0, 105.0]]]),
        "TRIPLET_LOSS": True,
        "WORKERS": 1,
    }
    vars(config).update(settings)
    return config


@pytest.fixture
def sampledata(monkeypatch):
    """The module of example 07."""
    monkeypatch.syspath_prepend(str(paths.tree() / "examples" / "07_person_list"))
    monkeypatch.delitem(sys.modules, "sampledata", raising=False)
    yield lambda *arguments: importlib.import_module("sampledata").sampledata(*arguments)
    sys.modules.pop("sampledata", None)


def test_a_net_of_the_older_layers_trains(config, tmp_path):
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(
        f'net: "{tmp_path}/net.prototxt" base_lr: 0.05 lr_policy: "fixed" max_iter: 100 '
        f'random_seed: 4 snapshot: 0 solver_mode: CPU snapshot_prefix: "{tmp_path}/s"\n'
    )
    solver = caffe.SGDSolver(str(tmp_path / "solver.prototxt"))
    losses = []
    weights = solver.net.params["features"][0].data.copy()
    for _ in range(100):
        solver.step(1)
        losses.append(float(solver.net.blobs["loss"].data))
    assert np.isfinite(losses).all()
    assert (solver.net.params["features"][0].data != weights).any()
    assert np.mean(losses[-20:]) < np.mean(losses[:20])


def test_batches_of_the_data_layer(config):
    made = build(NET.split('layer { name: "features"')[0])
    made.forward()
    data, labels = made.blobs["data"].data, made.blobs["labels"].data
    assert data.shape == (18, 3, 8, 8)
    anchors, positives, negatives = labels.reshape(3, 6)
    assert len({*anchors, *positives}) == 1
    assert anchors[0] not in negatives
    assert abs(data.mean()) < 30  # the means are subtracted


def test_data_layer_without_triplets(config, monkeypatch):
    monkeypatch.setattr(config, "TRIPLET_LOSS", False)
    made = build(NET.split('layer { name: "features"')[0].replace("30", "24"))
    seen = []
    for _ in range(4):
        made.forward()
        seen.extend(made.blobs["labels"].data.tolist())
    assert np.bincount(np.int64(seen)).tolist() == [18] * 4


def test_param_str_wins_over_config(config):
    text = NET.split('layer { name: "features"')[0]
    made = build(text.replace('"DataLayer"', '"DataLayer" param_str: "\'batch_size\': 6"'))
    assert made.blobs["data"].data.shape == (6, 3, 8, 8)


def test_without_settings_everything_has_a_default(config, monkeypatch):
    path, folder = config.IMAGE_LIST, sys.path[:]
    monkeypatch.setitem(sys.modules, "config", None)  # importing it fails
    text = NET.split('layer { name: "features"')[0]
    given = f"'source': '{path}', 'width': 8, 'height': 8, 'workers': 1"
    made = build(text.replace('"DataLayer"', f'"DataLayer" param_str: "{given}"'))
    assert made.blobs["data"].data.shape == (30, 3, 8, 8)
    assert sys.path == folder


def test_sampledata(config, sampledata):
    samples = sampledata()
    assert len(samples._sample) == 24
    assert samples._sample_label["person2@3.png"] == 2
    assert samples._sample_person["person3"] == [f"person3@{i}.png" for i in range(6)]


def test_sampledata_refuses_a_broken_line(tmp_path, sampledata):
    (tmp_path / "list.txt").write_text("ann@1.png 0\nbob@1.png\n")
    with pytest.raises(ValueError, match=r"list\.txt:2: 'person@file label' expected"):
        sampledata(tmp_path / "list.txt")


def loss_net(parameters):
    rows = {name: RNG.normal(size=(5, 3)).astype(np.float32) for name in "apn"}
    text = (
        "force_backward: true\n"
        + inputs(rows)
        + (
            'layer { name: "loss" type: "Python" bottom: "a" bottom: "p" bottom: "n" top: "loss" '
            'loss_weight: 1 python_param { module: "tripletlosslayer" layer: "TripletLayer" '
            f'param_str: "{parameters}" }} }}'
        )
    )
    made = build(text)
    for name, value in rows.items():
        made.blobs[name].data[...] = value
    made.forward()
    made.backward()
    return made, rows


def test_triplet_layer_is_the_triplet_loss():
    made, rows = loss_net("'margin': 0.2")
    options = oracle.Options(margin=0.2)
    expected = oracle.three_bottoms(options, rows["a"], rows["p"], rows["n"])
    assert float(made.blobs["loss"].data) == pytest.approx(expected.loss, rel=1e-5)
    violation = ((rows["a"] - rows["p"]) ** 2).sum(1) - ((rows["a"] - rows["n"]) ** 2).sum(1) + 0.2
    expected = (rows["n"] - rows["p"]) * (violation > 0)[:, None] / 5
    assert np.allclose(made.blobs["a"].diff, expected, atol=1e-6)


def test_unknown_parameters_of_older_prototxts_are_let_pass():
    with_more = loss_net("'margin': 0.5, 'num_classes': 2")[0]
    assert np.isfinite(with_more.blobs["loss"].data)


def test_norm2_has_its_gradient():
    x = RNG.normal(size=(4, 6)).astype(np.float32)
    made = build(
        "force_backward: true\n" + inputs({"x": x}) + 'layer { name: "n" type: "Python" '
        'bottom: "x" top: "y" python_param { module: "norm2layer" layer: "Norm2Layer" } }'
    )
    made.blobs["x"].data[...] = x
    made.forward()
    assert np.allclose(made.blobs["y"].data, norm_oracle.forward(x), atol=1e-6)
    diff = RNG.normal(size=x.shape)
    made.blobs["y"].diff[...] = diff
    made._backward(1, 0)
    assert np.allclose(made.blobs["x"].diff, norm_oracle.backward(x, diff), atol=1e-5)


def test_the_modules_name_no_batch_size():
    for name in ("tripletselectlayer", "tripletlosslayer", "norm2layer"):
        importlib.import_module(name)
        with open(sys.modules[name].__file__) as file:
            assert "BATCH_SIZE" not in file.read()
