"""TripletLoss against loops in float64: values, reports and gradients, for every option.

Every layout, loss, distance, swap, use_pair and normalisation, in C++ and in Python, at awkward
sizes; ties and duplicates; distances of 0. Left out here: which negative a random mining draws
(test_selection.py).
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tolerances
from equal_lengths import zip_equal
from harness import ENGINES, Spec, assert_close, run
from oracle import numeric, triplet

LOSSES = ["HINGE", "RATIO", "SOFT"]
DISTANCES = ["SQUARED_L2", "L2", "LP", "COSINE"]
NORMALIZATIONS = [None, "FULL", "VALID", "BATCH_SIZE", "NONE"]


def parameters(options, *names):
    """The layer's parameters: those of the oracle's options that differ from the defaults."""
    plain = triplet.Options()
    return {
        name: getattr(options, name)
        for name in options.__dataclass_fields__
        if name in names or getattr(options, name) != getattr(plain, name)
    }


def bottoms_of(layout, options, rng, n, d):
    """(bottoms by name, the names that carry features, the oracle of their arrays)."""
    if layout == 1:
        rows = n * (2 + options.num_negatives)
        return {"x": rng.normal(size=(rows, d))}, ["x"], triplet.one_bottom
    bottoms = {name: rng.normal(size=(n, d)) for name in ("a", "p", "n")}
    if layout == 4:
        bottoms["w"] = rng.uniform(0.1, 2, n)
    return bottoms, ["a", "p", "n"], triplet.three_bottoms


def check(engine, layout, options, rng, n=3, d=5, normalization=None, tops=4):
    bottoms, features, oracle = bottoms_of(layout, options, rng, n, d)
    bottoms = {name: np.float32(value) for name, value in bottoms.items()}
    spec = Spec("TripletLoss", parameters(options), tops, engine, normalization)
    made = run(spec, bottoms)
    found = made.forward()
    expected = oracle(options, *bottoms.values(), normalization=normalization)
    assert [top.shape for top in found] == [()] * tops
    numbers = [expected.loss, expected.active, expected.d_ap, expected.d_an]
    for top, number in zip(found, numbers):
        assert_close(top, number, tolerances.VALUE)
    gradients = made.backward(0.7)
    for name in features:

        def loss(value, name=name):
            return oracle(
                options, *{**bottoms, name: value}.values(), normalization=normalization
            ).loss

        assert_close(
            gradients[name],
            0.7 * numeric.gradient(loss, bottoms[name]),
            tolerances.LP_GRADIENT if options.distance == "LP" else tolerances.GRADIENT,
            # The cosine of numbers is +-1: its gradient is 0, up to the rounding of numbers near 1.
            floor=1.0 if options.distance == "COSINE" and d == 1 else 0.0,
        )
    if layout == 4:
        assert not gradients["w"].any()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("layout", [1, 3, 4])
@pytest.mark.parametrize(
    ("losstype", "distance", "swap", "use_pair"),
    list(itertools.product(LOSSES, DISTANCES, [False, True], [False, True])),
)
def test_options(rng, engine, layout, losstype, distance, swap, use_pair):
    options = triplet.Options(
        margin=0.6,
        losstype=losstype,
        distance=distance,
        p=3.0,
        swap=swap,
        use_pair=use_pair,
        num_negatives=2 if layout == 1 else 1,
    )
    check(engine, layout, options, rng)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("layout", [1, 3, 4])
@pytest.mark.parametrize(("n", "d"), [(1, 1), (1, 3), (7, 1), (2, 33), (5, 7)])
def test_sizes(rng, engine, layout, n, d):
    for distance in DISTANCES:
        check(engine, layout, triplet.Options(margin=5, distance=distance), rng, n, d)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("layout", [1, 3, 4])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_normalizations(rng, engine, layout, normalization):
    options = triplet.Options(margin=0.2, num_negatives=3 if layout == 1 else 1, use_pair=True)
    check(engine, layout, options, rng, n=4, normalization=normalization)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("p", [0.5, 1.0, 1.5, 2.0, 4.0])
def test_powers(rng, engine, p):
    check(engine, 3, triplet.Options(distance="LP", p=p, margin=3), rng)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("tops", [1, 2, 3])
def test_fewer_tops(rng, engine, tops):
    check(engine, 3, triplet.Options(), rng, tops=tops)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("mining", ["ALL", "HARDEST"])
@pytest.mark.parametrize(
    ("losstype", "distance", "swap", "use_pair"),
    list(itertools.product(LOSSES, DISTANCES, [False, True], [False, True])),
)
def test_mined(rng, engine, mining, losstype, distance, swap, use_pair):
    options = triplet.Options(
        margin=0.6,
        losstype=losstype,
        distance=distance,
        swap=swap,
        use_pair=use_pair,
        mining=mining,
    )
    check_mined(engine, options, rng.normal(size=(7, 3)), [4, 0, 4, 9, 0, 4, 2])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("mining", ["ALL", "HARDEST"])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_mined_normalizations(rng, engine, mining, normalization):
    options = triplet.Options(margin=0.1, mining=mining)
    check_mined(engine, options, rng.normal(size=(8, 5)), [0, 1] * 4, normalization)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("mining", ["ALL", "SEMIHARD", "VIOLATING", "HARDEST"])
@pytest.mark.parametrize("labels", [[3] * 5, list(range(5)), [7]])
def test_nothing_to_mine(rng, engine, mining, labels):
    """One class only, all classes different, and a batch of one row: loss 0, gradient 0."""
    x = rng.normal(size=(len(labels), 4))
    made = run(Spec("TripletLoss", {"mining": mining}, 4, engine), {"x": x, "y": np.array(labels)})
    expected = triplet.of_rows(triplet.Options(mining=mining), x, labels, [])
    found = [float(top) for top in made.forward()]
    assert found[:2] == [0, 0]
    assert_close(found[2:], [expected.d_ap, expected.d_an], tolerances.VALUE)
    assert not made.backward(1.0)["x"].any()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("mining", ["ALL", "HARDEST"])
def test_ties_and_duplicates(engine, mining):
    """Rows of small whole numbers: equal distances everywhere, and equal rows."""
    x = np.array([[0, 0], [1, 0], [0, 1], [1, 1], [0, 0], [1, 1], [2, 0], [0, 2]], float)
    options = triplet.Options(margin=0.5, mining=mining)
    check_mined(engine, options, x, [0, 0, 0, 1, 1, 1, 2, 2])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("distance", ["L2", "COSINE"])
def test_no_direction(engine, distance):
    """L2 at distance 0 and COSINE of a zero vector: finite, and no gradient through them."""
    zero, one = np.zeros((1, 3)), np.ones((1, 3))
    bottoms = {"a": zero, "p": zero, "n": one}
    made = run(Spec("TripletLoss", {"distance": distance, "margin": 5.0}, 1, engine), bottoms)
    assert np.isfinite(made.forward()[0])
    gradients = made.backward(1.0)
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())
    assert not gradients["p"].any()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("scale", [1e-30, 1e-25, 1e-18, 1e18, 1e25])
def test_the_cosine_does_not_depend_on_the_size_of_a_row(rng, engine, scale):
    """The squares of these rows are no float32 numbers."""
    names = ("a", "p", "n")
    bottoms = {name: np.float32(rng.normal(size=(5, 9))) for name in names}
    spec = Spec("TripletLoss", {"distance": "COSINE", "margin": 0.5}, 4, engine)
    plain = run(spec, bottoms)
    scaled = run(spec, {name: np.float32(scale) * x for name, x in bottoms.items()})
    for one, other in zip_equal(scaled.forward(), plain.forward()):
        assert_close(one, other, tolerances.VALUE)
    expected, found = plain.backward(1.0), scaled.backward(1.0)
    for name in names:
        assert_close(np.float64(found[name]) * scale, expected[name], tolerances.GRADIENT)


@pytest.mark.parametrize("engine", ENGINES)
def test_soft_is_stable(engine):
    """Arguments of +-10^6: exp would overflow."""
    bottoms = {"a": [[0.0], [0.0]], "p": [[1e3], [0.0]], "n": [[0.0], [1e3]]}
    made = run(Spec("TripletLoss", {"losstype": "SOFT"}, 1, engine), bottoms)
    assert_close(made.forward()[0], 1e6 / 4, tolerances.VALUE)
    gradients = made.backward(1.0)
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())
    assert gradients["p"][0, 0] == pytest.approx(2e3 / 4)


def check_mined(engine, options, x, labels, normalization=None):
    x, labels = np.float32(x), np.array(labels)
    spec = Spec("TripletLoss", parameters(options, "mining"), 4, engine, normalization)
    made = run(spec, {"x": x, "y": labels})
    found = made.forward()
    triplets = triplet.all_triplets(options, x, labels)
    expected = triplet.of_rows(options, x, labels, triplets, normalization)
    numbers = [expected.loss, expected.active, expected.d_ap, expected.d_an]
    for top, number in zip_equal(found, numbers):
        assert_close(top, number, tolerances.VALUE)
    gradients = made.backward(-1.3)
    # The triplets, and the number of active ones, stay as they are under a small step.
    slope = numeric.gradient(
        lambda value: triplet.of_rows(options, value, labels, triplets, normalization).loss, x
    )
    assert_close(gradients["x"], -1.3 * slope, tolerances.GRADIENT)
    assert not gradients["y"].any()
