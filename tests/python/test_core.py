"""caffe_metric._core against the NumPy rules, and its stub against the module.

The two share no code: a wrong index in one does not stand in the other. Sizes include one row, one
class, all classes different, D = 1, duplicates and ties; both types. Selections are compared
exactly: the draws are the same bits, and ties are broken by index.
"""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from types import SimpleNamespace

import caffe_metric
import numpy as np
import pytest
from caffe_metric.losses.triplet_batch import mined_triplets, triplet_batch
from caffe_metric.nets import schema
from caffe_metric.rules import reference
from caffe_metric.rules.reference import random
from caffe_metric.rules.reference.distance import Distance
from caffe_metric.rules.reference.triplet import TripletOptions
from equal_lengths import zip_equal

_core = pytest.importorskip("caffe_metric._core", reason="the extension is not built")
accelerated = pytest.importorskip("caffe_metric.rules.compiled")

DTYPES = [np.float32, np.float64]
# Of sums in another order, relative to the greatest number, at least 0.1: the inputs are about 1,
# so what is smaller is a difference of such numbers. Some 1e2 roundings of the type.
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}
DISTANCES = ["SQUARED_L2", "L2", "LP", "COSINE"]
KEYS = [0, 1, 2**63 + 12345]


def close(ours, theirs, dtype):
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    size = max(np.abs(theirs).max(initial=0), 0.1)
    assert np.abs(ours - theirs).max(initial=0) <= TOLERANCE[dtype] * size


def batches(dtype, distance="L2"):
    """(features, labels): the last has duplicates across and within classes, and ties.

    Cosines of rows with D = 1 are all ties, and others' ties are not exact: they have none here.
    """
    rng = np.random.default_rng(11)
    for n, d, classes in [(1, 3, 1), (7, 1, 2), (8, 5, 1), (9, 4, 9), (33, 7, 5), (64, 33, 16)]:
        x, labels = rng.normal(size=(n, d)), rng.integers(0, classes, n)
        if d > 1 or distance != "COSINE":
            yield x.astype(dtype), labels.astype(dtype)
    if distance == "COSINE":
        return
    x = rng.integers(0, 3, size=(24, 2)).astype(dtype)
    yield x, (np.arange(24) % 5).astype(dtype)


def test_random_numbers_are_the_same_bits():
    a, b, n = np.random.default_rng(0).integers(0, 2**31, size=(3, 200))
    for key in KEYS:
        numbers = random.draw(random.stream_of(key, a, b), n)
        expected = [_core.draw(key, *row) for row in zip(a.tolist(), b.tolist(), n.tolist())]
        assert numbers.tolist() == expected
        assert (random.coin(key, n) == _core.coin(key, n)).all()


def test_a_known_number():
    """The hash is fixed for ever: models and papers may depend on it. Computed by hand in ints."""

    def mix(z):
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return z ^ z >> 31

    golden = 0x9E3779B97F4A7C15
    stream = mix((42 + golden * ((7 << 32 | 9) + 1)) % 2**64)
    expected = mix((stream + golden * (5 + 1)) % 2**64)
    assert _core.draw(42, 7, 9, 5) == expected
    assert random.draw(random.stream_of(42, 7, 9), 5).tolist() == [expected]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("inner", [1, 3])
def test_norm(dtype, inner):
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(2, 5, 7, inner)).astype(dtype)
    x[1] = 0
    x[2] *= 1e-12
    results = []
    for rules in (accelerated, reference):
        y, dx = np.empty_like(x), np.empty_like(x)
        norms = rules.norm_forward(x, 1e-10, y)
        rules.norm_backward(y, norms, 1e-10, dy, dx)
        results.append((y, norms, dx))
        in_place = x.copy()
        assert (rules.norm_forward(in_place, 1e-10, in_place) == norms).all()
        assert (in_place == y).all()
    for ours, theirs in zip_equal(*results):
        close(ours, theirs, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("mining", ["SEMIHARD", "VIOLATING", "HARDEST"])
def test_mining_selects_the_same_rows(dtype, distance, mining):
    options = TripletOptions(margin=0.3, distance=Distance(distance, 3.0))
    found = 0
    for x, labels in batches(dtype, distance):
        for key in KEYS:
            ours = mined_triplets(options, mining, x, labels, key, accelerated)
            theirs = mined_triplets(options, mining, x, labels, key, reference)
            assert np.array_equal(ours, theirs)
            found += len(ours[0])
    assert found > 50


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("losstype", ["HINGE", "RATIO", "SOFT"])
@pytest.mark.parametrize("mining", ["ALL", "SEMIHARD", "HARDEST"])
@pytest.mark.parametrize("swap", [False, True])
def test_batch_losses(dtype, distance, losstype, mining, swap):
    options = TripletOptions(losstype, 0.3, True, swap, Distance(distance, 3.0))
    for x, labels in batches(dtype, distance):
        results = []
        for rules in (accelerated, reference):
            sums, gradient = triplet_batch(options, mining, x, labels, 5, rules)
            again, lazy = triplet_batch(options, mining, x, labels, 5, rules, with_gradient=False)
            assert again == sums
            gradient = gradient()
            close(lazy(), gradient, dtype)
            results.append((sums, gradient))
        (ours, our_gradient), (theirs, their_gradient) = results
        assert ours.count == theirs.count
        close([ours.loss, ours.d_ap, ours.d_an], [theirs.loss, theirs.d_ap, theirs.d_an], dtype)
        if not has_ties(x):  # at a kink both slopes are right
            assert ours.active == theirs.active
            close(our_gradient, their_gradient, dtype)


def has_ties(x):
    return (x == np.round(x)).all()


@pytest.mark.parametrize("strip", [1, 40, 200])
@pytest.mark.parametrize("mining", ["ALL", "SEMIHARD"])
@pytest.mark.parametrize("swap", [False, True])
def test_strips_change_nothing(monkeypatch, strip, mining, swap):
    from caffe_metric.losses import triplet_batch as module
    from caffe_metric.rules.reference import strips

    rng = np.random.default_rng(2)
    x, labels = rng.normal(size=(30, 6)), rng.integers(0, 7, 30).astype(float)
    options = TripletOptions("HINGE", 0.5, False, swap, Distance("L2"))
    for rules in (accelerated, reference):
        whole, gradient = triplet_batch(options, mining, x, labels, 9, rules)
        with monkeypatch.context() as patch:
            patch.setattr(strips, "STRIP", strip)
            patch.setattr(module, "STRIP", strip)
            parts, part_gradient = triplet_batch(options, mining, x, labels, 9, rules)
            close(part_gradient(), gradient(), np.float64)
        assert parts.count == whole.count
        close([parts.loss], [whole.loss], np.float64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("losstype", ["HINGE", "RATIO", "SOFT"])
@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 1, 33), (4, 3, 7), (1, 5, 3)])
def test_given_rows(dtype, distance, losstype, swap, shape):
    groups, negatives, dim = shape
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(groups, 2 + negatives, dim)).astype(dtype)
    weight = rng.uniform(0.5, 2, groups).astype(dtype)
    options = TripletOptions(losstype, 0.4, True, swap, Distance(distance, 3.0))
    results = []
    for rules in (accelerated, reference):
        triplets = rules.RowTriplets(options, rows[:, 0], rows[:, 1], rows[:, 2:], weight)
        gradient = np.full_like(rows, np.nan)
        triplets.gradient(0.7, gradient[:, 0], gradient[:, 1], gradient[:, 2:])
        results.append((triplets.sums, gradient))
    (ours, our_gradient), (theirs, their_gradient) = results
    assert (ours.count, ours.active) == (theirs.count, theirs.active)
    close([ours.loss, ours.d_ap, ours.d_an], [theirs.loss, theirs.d_ap, theirs.d_an], dtype)
    close(our_gradient, their_gradient, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("neg_num", [1, 3, 100])
@pytest.mark.parametrize("ratios", [(0.5, 0.5), (1.0, 0.0), (0.0, 1.0), (0.3, 0.9)])
def test_rank_hard_takes_the_same_rows(dtype, neg_num, ratios):
    parameters = SimpleNamespace(
        neg_num=neg_num, hard_ratio=ratios[0], rand_ratio=ratios[1], margin=1.0
    )
    for x, _ in batches(dtype):
        x = x[: len(x) // 2 * 2]
        labels = np.repeat(np.arange(len(x) // 2) % 4, 2).astype(dtype)
        anchors = np.arange(0, len(x), 2)
        products = x[anchors] @ x.T
        for key in KEYS:
            arguments = (products, anchors, labels, parameters, key)
            ours = accelerated.rank_hard_select(*arguments)
            theirs = reference.rank_hard_select(*arguments)
            assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [9, 200], ids=["dense", "sparse"])
def test_pair_products_and_their_gradient(dtype, rows):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(rows, 5)).astype(dtype)
    u, v = rng.integers(0, rows, size=(2, 40))
    w = rng.normal(size=40).astype(dtype)
    close(accelerated.pair_products(x, u, v), (x[u] * x[v]).sum(axis=1), dtype)
    close(reference.pair_products(x, u, v), (x[u] * x[v]).sum(axis=1), dtype)
    ours, theirs = (rules.products_gradient(x, u, v, w) for rules in (accelerated, reference))
    close(ours, theirs, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", [(1, 0.0, 0.0, 0.0), (2, 0.0, 0.0, 0.0), (3, 1.5, 0.0, 0.0)])
@pytest.mark.parametrize("more", [None, (4, 5.0, 0.0, 0.0), (1, 1.0, 0.5, 0.0), (1, 1.0, 0.3, 0.2)])
def test_target_curve(dtype, rule, more):
    bends = [-1.0, -np.sqrt(0.5), -0.5, 0.0, 0.5, np.sqrt(0.5), 1.0]
    c = np.r_[np.linspace(-1, 1, 101), bends].astype(dtype)
    ours = accelerated.target_curve(*(more or rule), c)
    theirs = reference.target_curve(*(more or rule), c)
    close(ours[0], theirs[0], dtype)
    inside = np.abs(c) < 1 - 1e-6  # the slope of ArcFace is infinite at the ends
    close(ours[1][inside], theirs[1][inside], dtype)


def test_arrays_are_neither_converted_nor_copied():
    x = np.zeros((3, 4, 1), np.float32)
    for bad in (x.astype(np.float16), x.transpose(1, 0, 2), x.tolist()):
        with pytest.raises(TypeError, match="incompatible function arguments"):
            _core.norm_forward(bad, 1e-10, x)
    with pytest.raises(ValueError, match="same 3 axes"):
        _core.norm_forward(x, 1e-10, np.zeros((3, 5, 1), np.float32))
    frozen = np.zeros_like(x)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="not writeable"):
        _core.norm_forward(x, 1e-10, frozen)


def test_row_numbers_are_checked():
    x = np.zeros((3, 2))
    bad = np.array([3])
    with pytest.raises(ValueError, match="a row number is out of range"):
        _core.pair_products(x, bad, bad)
    with pytest.raises(ValueError, match="a row number is out of range"):
        _core.mine(1, np.zeros((1, 3)), bad, np.zeros(3), 0.2, 1)
    with pytest.raises(ValueError, match="an anchor has no row after it"):
        _core.rank_hard_select(np.zeros((1, 3)), np.array([2]), np.zeros(3), 1, 0.5, 0.5, 0.5, 1)
    with pytest.raises(ValueError, match="swap needs all rows"):
        options = _core.Options(0, 1.0, 0, 2.0, 0.0, True, False)
        _core.all_triplets(options, np.zeros((1, 3)), np.array([0]), np.zeros(3), np.zeros((1, 3)))


def stub():
    """{name: {argument names of each overload}} of the stub; classes with their members."""
    path = Path(caffe_metric.__file__).with_name("_core.pyi")
    found = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found.setdefault(node.name, []).append([argument.arg for argument in node.args.args])
        elif isinstance(node, ast.ClassDef):
            found[node.name] = {member.name for member in node.body if hasattr(member, "name")}
            found[node.name].update(*(found[base.id] for base in node.bases))
        elif isinstance(node, ast.AnnAssign):
            found[node.target.id] = set()
    return {name: members for name, members in found.items() if not name.startswith("_")}


def test_the_stub_has_what_the_module_has():
    public = {name for name in dir(_core) if not name.startswith("_")}
    assert set(stub()) == public
    for name, described in stub().items():
        thing = getattr(_core, name)
        if isinstance(thing, int):
            continue
        if inspect.isclass(thing):
            members = {member for member in vars(thing) if not member.startswith("_")}
            assert described - {"__init__"} == members
            continue
        lines = [line for line in thing.__doc__.splitlines() if f"{name}(" in line]
        lines = [line for line in lines if "*args" not in line]
        real = [[part.partition(":")[0].strip() for part in arguments(line)] for line in lines]
        assert sorted(real) == sorted(described), name


def arguments(line):
    """The arguments of a signature line of pybind11, cut at commas outside of brackets."""
    text = line.partition("(")[2].rpartition(") ->")[0]
    depth, parts = 0, [""]
    for letter in text:
        depth += (letter in "[(") - (letter in "])")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def test_enums_of_the_headers_are_those_of_the_proto():
    """`accelerated` hands the numbers of the proto file to the enums of the headers."""
    enums = schema.message("TripletLossParameter").enums
    x = np.array([[0.0, 0.0], [3.0, 4.0]])
    rows, labels = np.arange(2), np.zeros(2)
    expected = {"SQUARED_L2": 25.0, "L2": 5.0, "LP": 91 ** (1 / 3), "COSINE": 1.0}
    for name, number in enums["Distance"].values.items():
        u, squares, lengths = np.zeros_like(x), np.zeros(2), np.zeros(2)
        _core.prepare_rows(number, x, u, squares, lengths)
        u = x if name == "LP" else u
        d = u @ u.T
        _core.gram_to_distances(number, 3.0, 0.0, rows, u, squares, d)
        assert d[0, 1] == pytest.approx(expected[name])
    distances = np.array([[0.0, 1.0, 1.5, 0.5]])
    labels = np.array([0.0, 0.0, 1.0, 2.0])
    semihard, violating, hardest = (
        _core.mine(enums["Mining"].values[name], distances, np.array([0]), labels, 1.0, 3)[0, 2]
        for name in ("SEMIHARD", "VIOLATING", "HARDEST")
    )
    assert (semihard, hardest) == (2, 3)
    assert violating in (2, 3)
    losses = []
    for name in ("HINGE", "RATIO", "SOFT"):
        loss = enums["LossType"].values[name]
        slopes = np.zeros_like(distances)
        options = _core.Options(loss, 1.0, 0, 2.0, 0.0, False, False)
        arguments = (options, distances, np.array([0]), labels, slopes)
        losses.append(_core.all_triplets(*arguments).loss)
    soft = np.log1p(np.exp(-0.5)) + np.log1p(np.exp(0.5))
    assert losses == pytest.approx([0.5 + 1.5, 0.25 + 0.75, soft])
