"""Trainings by MarginSoftmaxLoss: own_update under `train`, and the demo's net by one layer.

own_update's rate is the solver's at every iteration, classes that were not drawn keep their bits,
and a resumed training ends with the bits of one that went on. The demo's LeNet has the same curve
with the one layer as with the pair.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")

from caffe_metric.data.conversion import convert, keep_classes
from caffe_metric.demo.images import UNSEEN, load_images
from caffe_metric.support import paths
from harness import need
from test_weights import read_model
from training_nets import DATA, FC, write

import caffe

pytestmark = pytest.mark.slow  # each trains

CLASSES, MET = 64, 16
PARAMS = "param { lr_mult: 0 decay_mult: 0 } " * 4
HEADS = {
    "cpp": f"""
layer {{ name: "head" type: "MarginSoftmaxLoss" bottom: "fc" bottom: "label" top: "loss"
  param {{ lr_mult: 0 decay_mult: 0 }}
  margin_inner_product_param {{ num_output: {CLASSES} normalize_features: true scale: 8
    cosine_margin: 0.1 weight_filler {{ type: "gaussian" std: 1 }} }}
  margin_softmax_loss_param {{ sample_rate: 0.25 own_update: true update_rate: 7
    update_momentum: 0.5 update_decay: 0.01 }} }}
""",
    "python": f"""
layer {{ name: "head" type: "Python" bottom: "fc" bottom: "label" top: "loss" loss_weight: 1
  {PARAMS}
  python_param {{ module: "caffe_metric.layers" layer: "MarginSoftmaxLossLayer"
    param_str: "{{num_output: {CLASSES}, normalize_features: true, scale: 8, cosine_margin: 0.1, "
      "weight_filler: {{type: gaussian, std: 1}}, sample_rate: 0.25, own_update: true, "
      "update_rate: 7, update_momentum: 0.5, update_decay: 0.01}}" }} }}
""",
}
STEPS = {"lr_policy": '"step"', "gamma": 0.5, "stepsize": 4, "weight_decay": 0.1}


@pytest.fixture(params=HEADS)
def net(request):
    need(request.param, "MarginSoftmaxLoss")
    return DATA + FC + HEADS[request.param]


def models(folder, iterations):
    """The head's weights, count, momentum and rate after each of these iterations."""
    return [read_model(folder / f"small_iter_{i}.caffemodel")["head"] for i in iterations]


def test_the_rate_is_the_solvers_and_others_keep_their_bits(tmp_path, monkeypatch, command, net):
    monkeypatch.chdir(write(tmp_path, net, snapshot=1, max_iter=10, **STEPS))
    assert command("train", "--solver", "solver.prototxt")[0] == 0
    found = models(tmp_path, range(1, 11))
    # A snapshot after N iterations has the rate of the last one, of number N - 1.
    expected = [0.02 * 0.5 ** (i // 4) for i in range(10)]
    assert [rate.item() for *_, rate in found] == pytest.approx(expected)
    assert [count.item() for _, count, _, _ in found] == list(range(1, 11))
    met = set()
    for before, after in zip(found, found[1:]):
        for blob in (0, 2):  # the weights and their momentum
            changed = np.flatnonzero((before[blob] != after[blob]).any(axis=1))
            assert len(changed) == MET
        met.update(changed)
        assert {0, 1, 2, 3} <= set(changed.tolist())  # the classes of the batch
        lengths = np.linalg.norm(after[0][changed], axis=1)
        np.testing.assert_allclose(lengths, 1, atol=0.1)  # scaled, then moved a little
    assert MET < len(met) <= CLASSES


def test_a_resumed_training_ends_with_the_same_bits(tmp_path, monkeypatch, command, net):
    settings = {**STEPS, "snapshot": 10}
    for name, ends in (("whole", (24,)), ("parts", (10, 24))):
        for end in ends:
            monkeypatch.chdir(write(tmp_path / name, net, max_iter=end, **settings))
            more = ["--resume"] if end != ends[0] else []
            assert command("train", "--solver", "solver.prototxt", "--seed", 5, *more)[0] == 0
    for suffix in ("caffemodel", "solverstate"):
        whole, parts = (
            (tmp_path / name / f"small_iter_24.{suffix}").read_bytes()
            for name in ("whole", "parts")
        )
        assert whole == parts
    ((_, _, momentum, rate),) = models(tmp_path / "parts", [24])
    assert momentum.any()
    assert rate.item() == pytest.approx(0.02 * 0.5**5)


def test_a_model_of_the_pair_starts_one_with_own_update(tmp_path, monkeypatch, command):
    need("cpp", "MarginSoftmaxLoss")
    head = f"""
layer {{ name: "head" type: "MarginInnerProduct" bottom: "fc" bottom: "label" top: "logits"
  margin_inner_product_param {{ num_output: {CLASSES} weight_filler {{ type: "gaussian" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "logits" bottom: "label" top: "loss" }}
"""
    monkeypatch.chdir(write(tmp_path, DATA + FC + head, snapshot_prefix='"pair"'))
    pair = caffe.SGDSolver("solver.prototxt")
    pair.step(3)
    pair.snapshot()
    write(tmp_path, DATA + FC + HEADS["cpp"], max_iter=2)
    more = ("--weights", "pair_iter_3.caffemodel")
    assert command("train", "--solver", "solver.prototxt", *more)[0] == 0
    ((weights, count, momentum, _),) = models(tmp_path, [2])
    assert count.item() == 5
    stayed = ~momentum.any(axis=1)  # the classes that neither iteration has met
    assert 0 < stayed.sum() <= CLASSES - MET
    old = read_model(tmp_path / "pair_iter_3.caffemodel")["head"][0]
    np.testing.assert_array_equal(weights[stayed], old[stayed])


def test_a_solver_moves_classes_that_were_not_drawn(tmp_path, monkeypatch):
    """By its momentum, and its decay shrinks them: what own_update is there to avoid."""
    need("cpp", "MarginSoftmaxLoss")
    head = f"""
layer {{ name: "head" type: "MarginSoftmaxLoss" bottom: "fc" bottom: "label" top: "loss"
  margin_inner_product_param {{ num_output: {CLASSES} normalize_features: true scale: 8
    weight_filler {{ type: "gaussian" std: 1 }} }}
  margin_softmax_loss_param {{ sample_rate: 0.25 }} }}
"""
    rate, momentum, decay = 0.1, 0.9, 0.01
    monkeypatch.chdir(
        write(tmp_path, DATA + FC + head, base_lr=rate, momentum=momentum, weight_decay=decay)
    )
    solver = caffe.SGDSolver("solver.prototxt")
    weights = solver.net.params["head"][0]
    found = [weights.data.copy()]
    for _ in range(8):
        solver.step(1)
        found.append(weights.data.copy())
    for old, before, after in zip(found, found[1:], found[2:]):
        # Of a class that met in neither of two steps, the momentum and the decay go on.
        expected = momentum * (before - old) - rate * decay * before
        alone = np.abs(after - before - expected).max(axis=1) < 1e-6
        assert CLASSES - 2 * MET <= alone.sum() < CLASSES
    assert np.abs(expected[alone]).max() > 10 * rate * decay


# --- The demo's net -------------------------------------------------------------------------------

EXAMPLE = paths.tree() / "examples" / "03_margin"
# How long a rounding stays one: Adam divides a gradient by its own size, the smallest ones, which
# are little but rounding, too.
SOLVERS = {"SGD": ("base_lr: 0.01 momentum: 0.9", 60), "Adam": ("base_lr: 0.001", 10)}
CURVE = 1e-4


def one_layer(text):
    """The example's net with one layer for MarginInnerProduct and SoftmaxWithLoss."""
    text = text.replace('"MarginInnerProduct"', '"MarginSoftmaxLoss"')
    text = text.replace('top: "logits"', 'top: "loss"')
    return re.sub(r'layer \{\s+name: "loss".*?\n\}\n', "", text, flags=re.DOTALL)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A folder with the databases that the example's net reads."""
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("digits")
    seen = keep_classes(load_images("nowhere").train, exclude=UNSEEN, relabel=True)
    for name in ("train_random", "test"):
        convert(seen, folder / f"{name}.lmdb", order="random", epochs=1, seed=1)
    return folder


@pytest.mark.skipif(not EXAMPLE.is_dir(), reason="an installed package has none")
@pytest.mark.parametrize("kind", SOLVERS)
def test_the_demo_net_has_the_curve_of_the_pair(digits, kind):
    need("cpp", "MarginSoftmaxLoss")
    pair = (EXAMPLE / "net.prototxt").read_text().replace("build/demo", str(digits))
    one = one_layer(pair)
    assert pair.count("layer {") == one.count("layer {") + 1
    loss, lamda = train(digits, pair, kind)
    found, its_lamda = train(digits, one, kind)
    np.testing.assert_array_equal(its_lamda, lamda)
    np.testing.assert_allclose(found, loss, rtol=CURVE)
    assert loss[-1] < 0.5 * loss[0]


def train(folder, net, kind):
    """Loss and lambda of each iteration."""
    (folder / "net.prototxt").write_text(net)
    settings, iterations = SOLVERS[kind]
    (folder / "solver.prototxt").write_text(
        f'net: "{folder}/net.prototxt" type: "{kind}" {settings} lr_policy: "fixed" '
        "max_iter: 100 random_seed: 1"
    )
    made = caffe.get_solver(str(folder / "solver.prototxt"))
    curve = []
    for _ in range(iterations):
        made.step(1)
        curve.append([made.net.blobs[top].data.item() for top in ("loss", "lambda")])
    return np.array(curve).T
