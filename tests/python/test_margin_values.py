"""MarginInnerProduct against loops in float64, which use angles where the layer uses polynomials.

Logits and both gradients for every type, lambda and margin; phases; the weights' norms; lambda and
its counter; semihard; triplet. The gradients are those of the frozen logits formula at unit rows.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import tolerances
from harness import ENGINES, Spec, assert_close, run, unit_rows
from oracle import margin, numeric

import caffe

TYPES = ["SINGLE", "DOUBLE", "TRIPLE", "QUADRUPLE"]
M, K, C = 7, 5, 4
FILLER = {"type": "xavier"}


def spec(engine="cpp", tops=1, **parameters):
    given = {"num_output": C, "weight_filler": FILLER, **parameters}
    return Spec("MarginInnerProduct", given, tops, engine)


def batch(rng, m=M, k=K, c=C):
    x = np.float32(rng.normal(size=(m, k)))
    return {"x": x, "y": np.arange(m) * 3 % c}, unit_rows(rng, c, k)


def check(engine, options, rng, sizes=(M, K, C), phase=caffe.TRAIN, **parameters):
    bottoms, weights = batch(rng, *sizes)
    made = run(spec(engine, num_output=sizes[2], **parameters), bottoms, weights, phase)
    labels, x = bottoms["y"], bottoms["x"]
    found = made.forward()[0]
    assert_close(found, margin.forward(options, x, weights, labels), tolerances.VALUE)
    diff = np.float32(rng.normal(size=found.shape))
    gradient = made.backward(diff)

    def objective(x, weights):
        return np.sum(diff * margin.forward(options, x, weights, labels))

    # With one feature the cosine is +-1, where arccos has no slope: only the values count there.
    if sizes[1] > 1:
        by_x = numeric.gradient(lambda x: objective(x, weights), x)
        by_weight = numeric.gradient(lambda rows: objective(x, rows), weights)
        assert_close(gradient["x"], by_x, tolerances.GRADIENT)
        assert_close(made.blobs[0].diff, by_weight, tolerances.GRADIENT)
    assert not gradient["y"].any()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("lam", [0.0, 0.7, 1000.0])
@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_types(rng, engine, m, lam):
    check(engine, margin.Options(m=m, lam=lam), rng, type=TYPES[m - 1], base=lam)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("m", [1, 4])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 3, 2), (5, 2, 1), (3, 33, 7), (9, 1, 3)])
def test_sizes(rng, engine, m, sizes):
    check(engine, margin.Options(m=m, lam=1), rng, sizes, type=TYPES[m - 1])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "options",
    [
        {"normalize_features": True},
        {"scale": 30.0},
        {"normalize_features": True, "scale": 64.0, "angular_margin": 0.5},
        {"normalize_features": True, "scale": 64.0, "cosine_margin": 0.35},
        {"angular_margin": 1.5},
        {"angular_margin": 0.3, "cosine_margin": 0.2, "scale": 0.5},
    ],
)
def test_further_margins(rng, engine, options):
    # base 0: without an additive margin, SINGLE is the plain cosine whatever lambda is.
    check(engine, margin.Options(**options), rng, base=0.0, **options)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("m", [2, 3, 4])
def test_normalized_features_of_every_type(rng, engine, m):
    options = margin.Options(m=m, lam=0.5, normalize_features=True, scale=8)
    check(engine, options, rng, type=TYPES[m - 1], base=0.5, normalize_features=True, scale=8.0)


@pytest.mark.parametrize("engine", ENGINES)
def test_test_phase_is_plain(rng, engine):
    """And the weights, whose rows are not 1 here, are divided by their norms but not changed."""
    bottoms, weights = batch(rng)
    weights = weights * np.float32([[0.5], [2], [3], [0.1]])
    made = run(spec(engine, 2, type="QUADRUPLE"), bottoms, weights, caffe.TEST)
    logits = made.forward()[0]
    options = margin.Options(plain=True)
    assert_close(
        logits, margin.forward(options, bottoms["x"], weights, bottoms["y"]), tolerances.VALUE
    )
    np.testing.assert_array_equal(made.blobs[0].data, weights)


@pytest.mark.parametrize("engine", ENGINES)
def test_margin_in_test(rng, engine):
    bottoms, weights = batch(rng)
    made = run(
        spec(engine, type="TRIPLE", base=2.0, margin_in_test=True), bottoms, weights, caffe.TEST
    )
    options = margin.Options(m=3, lam=2)
    expected = margin.forward(options, bottoms["x"], weights, bottoms["y"])
    assert_close(made.forward()[0], expected, tolerances.VALUE)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_train_forward_makes_unit_rows(rng, engine):
    bottoms, weights = batch(rng)
    long = weights * np.float32([[0.5], [2], [0], [1e-3]])
    made = run(spec(engine), bottoms, long)
    logits = made.forward()[0]
    weights[2] = 0
    assert_close(made.blobs[0].data, weights, tolerances.UNIT)
    assert not made.blobs[0].data[2].any()  # a zero row stays zero
    assert not logits[bottoms["y"] != 2][:, 2].any()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", TYPES)
def test_zero_feature(rng, engine, kind):
    bottoms, weights = batch(rng)
    bottoms["x"][3] = 0
    made = run(spec(engine, type=kind), bottoms, weights)
    logits = made.forward()[0]
    gradient = made.backward(np.ones_like(logits))["x"]
    assert not logits[3].any()
    assert not gradient[3].any()
    assert gradient[:3].any()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("c", [1.0, -1.0, 0.0])
@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_ends_of_the_angles(engine, m, c):
    """theta = 0, pi/2 and pi exactly: psi and its gradient are finite, and psi is right."""
    x = np.float32([[2 * c, 2 * math.sqrt(1 - c * c)]])
    made = run(
        spec(engine, num_output=1, type=TYPES[m - 1], base=0.0), {"x": x, "y": [0]}, [[1.0, 0.0]]
    )
    found = made.forward()[0]
    assert_close(found, [[2 * margin.psi(m, math.acos(c))]], tolerances.VALUE, floor=1.0)
    assert np.isfinite(made.backward([[1.0]])["x"]).all()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_reference_gradient(rng, engine, m):
    bottoms, weights = batch(rng)
    made = run(spec(engine, type=TYPES[m - 1], base=3.0, gradient="REFERENCE"), bottoms, weights)
    made.forward()
    diff = np.float32(rng.normal(size=(M, C)))
    found = made.backward(diff)["x"]
    options = margin.Options(m=m, lam=3)
    dx, dw = margin.reference_backward(options, bottoms["x"], weights, bottoms["y"], diff)
    assert_close(found, dx, tolerances.GRADIENT)
    assert_close(made.blobs[0].diff, dw, tolerances.GRADIENT)


@pytest.mark.parametrize("engine", ENGINES)
def test_lambda_and_its_counter(rng, engine):
    """The second top is lambda; t counts TRAIN forwards and stands in the second blob."""
    schedule = {"base": 100.0, "gamma": 0.5, "power": 1.5, "lambda_min": 9.0, "iteration": 4}
    bottoms, weights = batch(rng)
    made = run(spec(engine, 2, type="QUADRUPLE", **schedule), bottoms, weights)
    assert made.blobs[1].data.size == 1
    for t in (5, 6, 7):
        found = made.forward()[1]
        assert found.size == 1
        assert_close(found.ravel()[0], margin.annealed(100, 0.5, 1.5, 9, t), tolerances.VALUE)
        assert made.blobs[1].data.item() == t
    for _ in range(5):
        found = made.forward()[1]
    assert found.ravel()[0] == 9  # lambda_min


@pytest.mark.parametrize("engine", ENGINES)
def test_a_loaded_counter_wins(rng, engine):
    schedule = {"base": 100.0, "gamma": 0.5, "power": 1.0, "iteration": 4}
    bottoms, weights = batch(rng)
    made = run(spec(engine, 2, **schedule), bottoms, weights)
    made.blobs[1].data[...] = 40
    found = made.forward()[1]
    assert_close(found.ravel()[0], margin.annealed(100, 0.5, 1, 0, 41), tolerances.VALUE)
    assert made.blobs[1].data.item() == 41


@pytest.mark.parametrize("engine", ENGINES)
def test_the_counter_rests_in_test(rng, engine):
    bottoms, weights = batch(rng)
    made = run(spec(engine, gamma=1.0, iteration=4), bottoms, weights, caffe.TEST)
    made.forward()
    made.forward()
    assert made.blobs[1].data.item() == 4


@pytest.mark.parametrize("engine", ENGINES)
def test_one_blob_without_persistence(rng, engine):
    bottoms, weights = batch(rng)
    made = run(spec(engine, 2, gamma=1.0, persist_iteration=False), bottoms, weights)
    assert len(made.blobs) == 1
    found = [made.forward()[1].ravel()[0] for _ in range(2)]
    assert_close(found, [1 / 2, 1 / 3], tolerances.VALUE)


@pytest.mark.parametrize("engine", ENGINES)
def test_semihard(rng, engine):
    """Easy rows (right with the margin) and hard rows (wrong without it) get no dx."""
    bottoms, weights = batch(rng, m=24)
    options = {"type": "DOUBLE", "base": 0.5}
    plain = run(spec(engine, **options), bottoms, weights)
    semihard = run(spec(engine, semihard=True, **options), bottoms, weights)
    logits, cosines = plain.forward()[0], bottoms["x"] @ weights.T
    np.testing.assert_array_equal(semihard.forward()[0], logits)
    easy = logits.argmax(1) == bottoms["y"]
    hard = cosines.argmax(1) != bottoms["y"]
    kept = ~easy & ~hard
    assert easy.any()
    assert hard.any()
    assert kept.any()
    diff = np.float32(rng.normal(size=logits.shape))
    whole, part = plain.backward(diff)["x"], semihard.backward(diff)["x"]
    assert not part[~kept].any()
    np.testing.assert_array_equal(part[kept], whole[kept])
    assert_close(semihard.blobs[0].diff, plain.blobs[0].diff, tolerances.GRADIENT)


@pytest.mark.parametrize("engine", ENGINES)
def test_semihard_without_a_margin_keeps_hard_rows(rng, engine):
    bottoms, weights = batch(rng, m=24)
    made = run(spec(engine, semihard=True, type="SINGLE", base=0.0), bottoms, weights)
    logits = made.forward()[0]
    easy = logits.argmax(1) == bottoms["y"]
    found = made.backward(np.float32(rng.normal(size=logits.shape)))["x"]
    assert easy.any()
    assert not found[easy].any()
    assert found[~easy].all()


@pytest.mark.parametrize("engine", ENGINES)
def test_triplet_takes_samples_for_weights(rng, engine):
    """Each class of the batch, with probability 1/2, the unit feature of its last sample."""
    c, k = 64, 5
    x = np.float32(rng.normal(size=(2 * 40, k)))
    x[79] = 0  # the last sample of class 39
    labels = np.tile(np.arange(40), 2)
    weights = unit_rows(rng, c, k)
    made = run(spec(engine, num_output=c, triplet=True), {"x": x, "y": labels}, weights)
    logits = made.forward()[0]
    made.backward(np.float32(rng.normal(size=logits.shape)))
    assert not made.blobs[0].diff.any()
    found = made.blobs[0].data
    last = x[40:79] / np.linalg.norm(x[40:79], axis=1, keepdims=True)
    taken = np.abs(found[:39] - last).max(1) < tolerances.UNIT
    kept = np.abs(found[:39] - weights[:39]).max(1) < tolerances.UNIT
    assert (taken ^ kept).all()
    assert 8 <= taken.sum() <= 31  # 39 fair coins: outside with probability 1e-4, and seeded
    np.testing.assert_allclose(found[39:], weights[39:], atol=tolerances.UNIT)


@pytest.mark.parametrize("engine", ENGINES)
def test_axis(rng, engine):
    """axis 1 of a four-axis bottom: the feature is all that follows; axis 2: rows are pairs."""
    x = np.float32(rng.normal(size=(3, 2, 2, 1)))
    weights = unit_rows(rng, C, 4)
    made = run(spec(engine), {"x": x, "y": [0, 3, 1]}, weights)
    expected = margin.forward(margin.Options(m=1), x.reshape(3, 4), weights, [0, 3, 1])
    assert_close(made.forward()[0].reshape(3, C), expected, tolerances.VALUE)
    x = np.float32(rng.normal(size=(3, 2, 4)))
    labels = np.arange(6) % C
    made = run(spec(engine, axis=2), {"x": x, "y": labels}, weights)
    expected = margin.forward(margin.Options(m=1), x.reshape(6, 4), weights, labels)
    assert_close(made.forward()[0].reshape(6, C), expected, tolerances.VALUE)
