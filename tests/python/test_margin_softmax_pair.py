"""MarginSoftmaxLoss against the two layers that it replaces, as Caffe itself runs them.

The pair is MarginInnerProduct and Caffe's own SoftmaxWithLoss in a net; losses, lambda, gradients
by features and weights, and the weights that a TRAIN pass rewrites have to be theirs to rounding:
all types, lambda and margins, ignored rows, normalisation, loss_weight, phases; C++ with logits
kept and made twice, Python with and without compiled rules; targets on both sides of each edge of
the strips. Label smoothing, which the stock layer has not, is held against NumPy on the pair's
logits. What the pair cannot show (sampling, own_update) is in test_margin_softmax_sampling.cpp.
"""

from __future__ import annotations

import numpy as np
import pytest
import tolerances
from caffe_metric.losses import margin_softmax
from caffe_metric.nets import one_layer
from harness import Spec, assert_close, need, run, unit_rows

import caffe

M, K, C = 12, 5, 7
FILLER = {"type": "xavier"}
# The engine, and what it does with the logits; a Python layer always makes them twice.
WAYS = [("cpp", "ALWAYS"), ("cpp", "NEVER"), ("python", "AUTO"), ("numpy", "AUTO")]
TYPES = ["SINGLE", "DOUBLE", "TRIPLE", "QUADRUPLE"]
MARGINS = {
    **{f"{kind}-{base:g}": {"type": kind, "base": base} for kind in TYPES for base in (0.0, 3.0)},
    "lambda": {"type": "TRIPLE", "base": 50.0, "gamma": 0.5, "power": 1.5, "lambda_min": 1.0},
    "arcface": {"normalize_features": True, "scale": 16.0, "angular_margin": 0.5},
    "cosface": {"normalize_features": True, "scale": 16.0, "cosine_margin": 0.35},
    "both": {"angular_margin": 0.3, "cosine_margin": 0.2, "scale": 2.0},
    "l-softmax": {"type": "DOUBLE", "base": 1.0, "normalize_weights": False},
    "semihard": {"type": "DOUBLE", "base": 0.0, "semihard": True},
    "triplet": {"type": "DOUBLE", "base": 1.0, "triplet": True},
    "reference": {"type": "QUADRUPLE", "base": 2.0, "gradient": "REFERENCE"},
}


def batch(rng, m=M, k=K, c=C):
    labels = np.arange(m) * 3 % c
    return {"x": np.float32(rng.normal(size=(m, k))), "y": labels}, 1.5 * unit_rows(rng, c, k)


class Pair:
    """A net of both layers; the same numbers as a run of the one layer, by name."""

    def __init__(self, bottoms, weights, parameters, loss="", weight=1.0, phase=caffe.TRAIN):
        need("cpp", "MarginInnerProduct")
        margin = one_layer.layer(
            "MarginInnerProduct", bottoms, ["logits", "lambda"], parameters, name="margin"
        )
        softmax = (
            'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "logits" bottom: "y" top: "loss" '
            "propagate_down: true propagate_down: false "  # labels have no gradient
            f"loss_weight: {weight} loss_param {{ {loss} }} }}\n"
        )
        text = "force_backward: true\n" + one_layer.inputs(bottoms) + margin + softmax
        self.net = one_layer.build(text, phase)
        for name, value in bottoms.items():
            self.net.blobs[name].data[...] = value
        self.net.params["margin"][0].data[...] = weights

    def forward(self, seed=1):
        caffe.set_random_seed(seed)
        self.net.forward()
        self.loss = self.net.blobs["loss"].data.copy()
        self.lamda = self.net.blobs["lambda"].data.copy()
        return self

    def backward(self, logits_diff=None):
        """With a diff of the logits, MarginInnerProduct's alone."""
        first = list(self.net._layer_names).index("margin")
        if logits_diff is not None:
            self.net.blobs["logits"].diff[...] = logits_diff
        self.net._backward(first if logits_diff is not None else len(self.net.layers) - 1, 0)
        self.dx = self.net.blobs["x"].diff.copy()
        self.dw = self.net.params["margin"][0].diff.copy()
        self.weights = self.net.params["margin"][0].data.copy()
        return self


def ours(way, bottoms, weights, parameters, loss=None, weight=None, phase=caffe.TRAIN):
    """A run of the one layer. loss: {name: value} of loss_param."""
    engine, keep = way
    loss = dict(loss or {})
    spec = Spec("MarginSoftmaxLoss", dict(parameters), 3, engine, loss_weight=weight)
    spec.parameters["weight_filler"] = FILLER
    if engine == "cpp":
        spec.parameters["keep_logits"] = keep
        spec.extra = f"loss_param {{ {words(loss)} }}"
    else:
        spec.parameters.update(loss)
    return run(spec, bottoms, weights, phase)


def words(given):
    return " ".join(f"{name}: {value}" for name, value in given.items())


def compare(way, bottoms, weights, parameters, loss=None, weight=1.0, phase=caffe.TRAIN):
    given = {"num_output": len(weights), **parameters}
    pair = Pair(bottoms, weights, given, words(loss or {}), weight, phase).forward().backward()
    made = ours(way, bottoms, weights, given, loss, weight, phase)
    value, lamda, _ = made.forward()
    gradients = made.backward(weight)
    assert_close(value, pair.loss, tolerances.VALUE)
    assert_close(lamda, pair.lamda, tolerances.VALUE)
    assert_close(gradients["x"], pair.dx, tolerances.GRADIENT, floor=1e-3)
    assert_close(made.blobs[0].diff, pair.dw, tolerances.GRADIENT, floor=1e-3)
    if way[0] == "cpp" or not parameters.get("triplet"):  # a Python layer draws by a key of its own
        assert_close(made.blobs[0].data, pair.weights, tolerances.UNIT)
    assert not gradients["y"].any()
    return pair


@pytest.mark.parametrize("way", WAYS, ids="-".join)
@pytest.mark.parametrize("name", MARGINS)
def test_every_margin(rng, way, name):
    bottoms, weights = batch(rng)
    for phase in (caffe.TRAIN, caffe.TEST):
        pair = compare(way, bottoms, weights, MARGINS[name], phase=phase)
        if name != "semihard" and phase == caffe.TRAIN:
            assert np.abs(pair.dx).max() > 1e-3
    compare(way, bottoms, weights, {**MARGINS[name], "margin_in_test": True}, phase=caffe.TEST)


@pytest.mark.parametrize("way", WAYS, ids="-".join)
@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 3, 2), (5, 1, 3), (3, 33, 7), (40, 7, 3)])
def test_sizes(rng, way, sizes):
    bottoms, weights = batch(rng, *sizes)
    for kind in TYPES:
        compare(way, bottoms, weights, {"type": kind, "base": 1.0})


@pytest.mark.parametrize("way", WAYS, ids="-".join)
@pytest.mark.parametrize("normalization", [None, "FULL", "VALID", "BATCH_SIZE", "NONE"])
@pytest.mark.parametrize("ignored", [None, 2, "all"])
def test_ignored_rows_normalisation_and_weight(rng, way, normalization, ignored):
    bottoms, weights = batch(rng)
    loss = {} if normalization is None else {"normalization": normalization}
    if ignored == "all":
        bottoms["y"] = np.full(M, 3)
    if ignored is not None:
        loss["ignore_label"] = 3 if ignored == "all" else ignored
    pair = compare(way, bottoms, weights, {"type": "QUADRUPLE", "base": 1.0}, loss, weight=2.5)
    assert (pair.loss == 0) == (ignored == "all")


@pytest.mark.parametrize("keep", ["ALWAYS", "NEVER"])
@pytest.mark.parametrize("dim", [4, 16])
def test_edges_of_the_strips_as_they_are(rng, keep, dim):
    """Strips of 864 classes; with 16 dimensions in several parts, which the cores share out."""
    bottoms, weights = batch(rng, 300, dim, 3000)
    edges = [0, 1, 862, 863, 864, 865, 1727, 1728, 1729, 2591, 2592, 2998, 2999]
    bottoms["y"] = np.resize(edges, 300)
    margin = {"type": "DOUBLE", "base": 1.0, "normalize_features": True, "scale": 8.0}
    compare(("cpp", keep), bottoms, weights, margin)
    compare(("cpp", keep), bottoms, weights, margin, phase=caffe.TEST)


@pytest.mark.parametrize("engine", ["python", "numpy"])
@pytest.mark.parametrize("width", [1, 2, 3, 4, 9, 10, 11])
def test_edges_of_the_python_layers_strips(rng, monkeypatch, engine, width):
    bottoms, weights = batch(rng, 10, K, 10)
    monkeypatch.setattr(margin_softmax, "STRIP", 10 * width)
    for margin in (MARGINS["QUADRUPLE-3"], MARGINS["arcface"], MARGINS["l-softmax"]):
        compare((engine, "AUTO"), bottoms, weights, margin)
    compare((engine, "AUTO"), bottoms, weights, MARGINS["semihard"], {"ignore_label": 4})


@pytest.mark.parametrize("way", WAYS, ids="-".join)
@pytest.mark.parametrize("smoothing", [0.1, 0.8])
def test_smoothing(rng, way, smoothing):
    """-sum_j q_j ln p_j with q = (1 - s) [j = y] + s / C, over the logits of MarginInnerProduct."""
    bottoms, weights = batch(rng)
    margin = {"num_output": C, "type": "TRIPLE", "base": 1.0}
    pair = Pair(bottoms, weights, margin).forward()
    z = np.float64(pair.net.blobs["logits"].data)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    wanted = np.full(z.shape, smoothing / C)
    wanted[np.arange(M), bottoms["y"]] += 1 - smoothing
    made = ours(way, bottoms, weights, {**margin, "label_smoothing": smoothing}, weight=3.0)
    assert_close(made.forward()[0], -(wanted * log_p).sum() / M, tolerances.VALUE)
    found = made.backward(3.0)
    pair.backward(3 * (np.exp(log_p) - wanted) / M)
    assert_close(found["x"], pair.dx, tolerances.GRADIENT)
    assert_close(made.blobs[0].diff, pair.dw, tolerances.GRADIENT)


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_the_share_of_right_rows(rng, way):
    """Of the plain logits, as Caffe's Accuracy has it after the pair in its TEST phase."""
    bottoms, weights = batch(rng, 60, 3, 4)
    margin = {"num_output": 4, "type": "QUADRUPLE", "base": 0.0}
    plain = Pair(bottoms, weights, margin, phase=caffe.TEST).forward().net.blobs["logits"].data
    expected = np.mean(plain.argmax(axis=1) == bottoms["y"])
    assert 0 < expected < 1
    for phase in (caffe.TRAIN, caffe.TEST):
        assert_close(ours(way, bottoms, weights, margin, phase=phase).forward()[2], expected, 1e-6)


@pytest.mark.parametrize("way", WAYS, ids="-".join)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_weights_that_are_not_a_number_show_beside_a_zero_feature(rng, way):
    for value in (np.nan, np.inf):
        weights = unit_rows(rng, 3, K)
        weights[1, 2] = value
        bottoms = {"x": np.zeros((1, K), np.float32), "y": np.int64([1])}
        margin = {"num_output": 3, "type": "DOUBLE", "normalize_weights": False}
        assert np.isnan(ours(way, bottoms, weights, margin).forward()[0])
        pair = Pair(bottoms, weights, margin).forward()
        assert np.isnan(pair.net.blobs["logits"].data[0, 1])
