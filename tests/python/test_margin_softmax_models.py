"""Models of MarginSoftmaxLoss: to and from the pair of layers, and with own_update's blobs.

Blobs go by layer name: what MarginInnerProduct and SoftmaxWithLoss have learned, MarginSoftmaxLoss
goes on with, lambda and all, and the other way round. `caffe-metric weights` adds and takes out the
count, and own_update's momentum and rate, in every combination; files are made by messages and by
h5py here, and Caffe itself loads the results in the last test.
"""

from __future__ import annotations

import numpy as np
import pytest
import tolerances
import training_nets
from caffe_metric.nets import iteration
from equal_lengths import zip_equal
from harness import assert_close, need
from test_weights import read_model, read_state, write_model, write_state

CLASSES, DIM = 7, 3
BLOBS = {
    "weights": np.arange(21, dtype=np.float32).reshape(CLASSES, DIM),
    "t": np.float32([40]),
    "momentum": -np.arange(21, dtype=np.float32).reshape(CLASSES, DIM) / 8,
    "rate": np.float32([0.25]),
}
# What a new blob holds, by the net below.
FRESH = {"t": [30], "momentum": np.zeros((CLASSES, DIM)), "rate": [0.5]}
LAYOUTS = [
    ("weights",),
    ("weights", "t"),
    ("weights", "momentum", "rate"),
    ("weights", "t", "momentum", "rate"),
]
NET = """
layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 4 dim: 3 }} }} }}
layer {{ name: "label" type: "Input" top: "label" input_param {{ shape {{ dim: 4 }} }} }}
layer {{ name: "fc" type: "MarginSoftmaxLoss" bottom: "data" bottom: "label" top: "loss"
  {param}
  margin_inner_product_param {{ num_output: 7 iteration: 30 persist_iteration: {persist} }}
  margin_softmax_loss_param {{ own_update: {update} update_rate: 0.5 }} }}
"""


def write_net(folder, layout):
    path = folder / f"net_{len(layout)}.prototxt"
    persist, update = (str(name in layout).lower() for name in ("t", "rate"))
    param = "param { lr_mult: 0 decay_mult: 0 }" if "rate" in layout else ""
    path.write_text(NET.format(persist=persist, update=update, param=param))
    return path


@pytest.mark.parametrize("suffix", [".caffemodel", ".caffemodel.h5"])
@pytest.mark.parametrize("new", LAYOUTS, ids=len)
@pytest.mark.parametrize("old", LAYOUTS, ids=len)
def test_every_layout_to_every_other(command, tmp_path, suffix, old, new):
    source, target = tmp_path / f"old{suffix}", tmp_path / f"new{suffix}"
    write_model(source, {"fc": [BLOBS[name] for name in old]})
    net = write_net(tmp_path, new)
    assert iteration.fits(str(source), str(net)) == (old == new)
    status, out, err = command("weights", source, target, "--net", net)
    assert (status, err) == (0, "")
    found = read_model(target)["fc"]
    for name, blob in zip_equal(new, found):
        np.testing.assert_array_equal(blob, BLOBS[name] if name in old else FRESH[name])
    assert ("fits already" in out) == (old == new)
    gone, added = set(old) - set(new), set(new) - set(old)
    assert ("took out the momentum, took out the rate" in out) == ("rate" in gone)
    assert ("added the momentum, zeros, added the rate, 0.5" in out) == ("rate" in added)
    assert ("took out the iteration count" in out) == ("t" in gone)
    assert ("added the iteration count, 30" in out) == ("t" in added)
    assert iteration.fits(str(target), str(net))


@pytest.mark.parametrize("suffix", ["", ".h5"])
@pytest.mark.parametrize("sections", [1, 2])
def test_states_to_own_update_and_back(command, tmp_path, suffix, sections):
    """sections: Adam keeps two histories in a row."""
    old, new = ("weights", "t"), ("weights", "t", "momentum", "rate")
    model = tmp_path / f"old.caffemodel{suffix}"
    write_model(model, {"fc": [BLOBS[name] for name in old]})
    section = [BLOBS["weights"] / 2, np.float32([0])]
    history = [array + i for i in range(sections) for array in section]
    state, fitted, back = (
        tmp_path / f"{name}.solverstate{suffix}" for name in ("old", "new", "back")
    )
    write_state(state, model, history)
    assert command("weights", state, fitted, "--net", write_net(tmp_path, new))[0] == 0
    found = read_state(fitted)[3]
    assert len(found) == 4 * sections
    for i in range(sections):
        part = found[4 * i : 4 * i + 4]
        assert [array.shape for array in part] == [(CLASSES, DIM), (1,), (CLASSES, DIM), (1,)]
        np.testing.assert_array_equal(part[0], history[2 * i])
        assert not part[2].any()
    assert command("weights", fitted, back, "--net", write_net(tmp_path, old))[0] == 0
    for one, other in zip_equal(read_state(back)[3], history):
        np.testing.assert_array_equal(one, other)


def test_a_model_with_too_many_blobs(command, tmp_path):
    source = tmp_path / "old.caffemodel"
    write_model(source, {"fc": [*BLOBS.values(), BLOBS["t"]]})
    net = write_net(tmp_path, LAYOUTS[1])
    status, _, err = command("weights", source, tmp_path / "new.caffemodel", "--net", net)
    assert status == 1
    assert err.strip().endswith("layer 'fc' has 5 blobs, at most 4 are known")


def test_lint_knows_the_layouts(command, tmp_path):
    source = tmp_path / "old.caffemodel"
    write_model(source, {"fc": [BLOBS[name] for name in LAYOUTS[1]]})
    status, out, _ = command("lint", write_net(tmp_path, LAYOUTS[3]), "--weights", source)
    assert status == 1
    assert "holds 2 blob(s) of it, the net 4" in out
    assert command("lint", write_net(tmp_path, LAYOUTS[1]), "--weights", source)[0] == 0


# --- In Caffe -----------------------------------------------------------------------------------

TRUNK = training_nets.DATA + training_nets.FC
MARGIN = (
    'num_output: 4 type: DOUBLE weight_filler { type: "xavier" } base: 50 gamma: 0.1 lambda_min: 1'
)
PAIR = f"""
layer {{ name: "head" type: "MarginInnerProduct" bottom: "fc" bottom: "label" top: "logits"
  top: "lambda" margin_inner_product_param {{ {MARGIN} }} }}
layer {{ name: "softmax" type: "SoftmaxWithLoss" bottom: "logits" bottom: "label" top: "loss" }}
"""
ONE = f"""
layer {{ name: "head" type: "MarginSoftmaxLoss" bottom: "fc" bottom: "label" top: "loss"
  top: "lambda" margin_inner_product_param {{ {MARGIN} }} }}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    need("cpp", "MarginSoftmaxLoss")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(folder, text):
    """A solver of the trunk and this head, snapshots under the number of the head's layers."""
    import caffe

    name = f"of_{text.count('layer {')}"
    training_nets.write(folder, TRUNK + text, snapshot_prefix=f'"{name}"')
    return caffe.SGDSolver("solver.prototxt")


def same_step(folder, model):
    """The first step of both nets from this model; returns the count that they came to."""
    found = []
    for text in (PAIR, ONE):
        solver = load(folder, text)
        solver.net.copy_from(model)
        solver.step(1)
        net = solver.net
        tops = [net.blobs[name] for name in ("loss", "lambda")]
        found.append([blob.data.copy() for blob in (*tops, *net.params["head"], *net.params["fc"])])
    for one, other in zip_equal(*found):
        assert_close(one, other, tolerances.VALUE)
    return found[0][3].item()


def test_from_the_pair_to_the_one_and_back(folder):
    pair = load(folder, PAIR)
    pair.step(20)
    pair.snapshot()
    assert same_step(folder, "of_2_iter_20.caffemodel") == 21
    one = load(folder, ONE)
    one.net.copy_from("of_2_iter_20.caffemodel")
    one.step(20)
    one.snapshot()
    assert same_step(folder, "of_1_iter_20.caffemodel") == 41
