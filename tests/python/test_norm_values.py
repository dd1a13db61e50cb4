"""Norm against loops in float64: every number of axes, in place, short and zero vectors."""

from __future__ import annotations

import numpy as np
import pytest
import tolerances
from harness import ENGINES, Spec, assert_close, build, inputs, need, run
from oracle import norm

SHAPES = [(1, 1), (1, 33), (5, 1), (3, 7), (2, 3, 4), (2, 5, 3, 2), (1, 1, 2, 3)]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients(rng, engine, shape):
    x, diff = np.float32(rng.normal(size=shape)), np.float32(rng.normal(size=shape))
    made = run(Spec("Norm", engine=engine), {"x": x})
    assert_close(made.forward()[0], norm.forward(x), tolerances.VALUE)
    found = made.backward(diff)["x"]
    expected = norm.backward(x, diff)
    if shape[1] == 1:  # x / |x| is +-1: no gradient but rounding
        assert np.abs(found).max() < tolerances.VALUE * np.abs(diff).max() / np.abs(x).min()
    else:
        assert_close(found, expected, tolerances.GRADIENT)


@pytest.mark.parametrize("engine", ENGINES)
def test_in_place(rng, engine):
    need(engine)
    x, diff = np.float32(rng.normal(size=(4, 6))), np.float32(rng.normal(size=(4, 6)))
    text = Spec("Norm", engine=engine).text(["x"]).replace("top0", "x")
    net = build("force_backward: true\n" + inputs({"x": x}) + text)
    net.blobs["x"].data[...] = x
    net.forward()
    assert_close(net.blobs["x"].data, norm.forward(x), tolerances.VALUE)
    net.blobs["x"].diff[...] = diff
    net._backward(len(net.layers) - 1, 0)
    assert_close(net.blobs["x"].diff, norm.backward(x, diff), tolerances.GRADIENT)


@pytest.mark.parametrize("engine", ENGINES)
def test_short_vectors(engine):
    x = np.array([[3.0, 4.0], [0.03, 0.04], [0.0, 0.0]], np.float32)
    made = run(Spec("Norm", {"eps": 0.1}, engine=engine), {"x": x})
    assert_close(made.forward()[0], norm.forward(x, 0.1), tolerances.VALUE)
    found = made.backward(np.ones_like(x))["x"]
    assert_close(found, norm.backward(x, np.ones_like(x), 0.1), tolerances.GRADIENT)
    assert not found[1:].any()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_squares_neither_overflow_nor_underflow(engine, size):
    x = np.array([[3.0, -4.0]], np.float32) * np.float32(size)
    made = run(Spec("Norm", {"eps": 1e-30}, engine=engine), {"x": x})
    assert_close(made.forward()[0], [[0.6, -0.8]], tolerances.VALUE)
