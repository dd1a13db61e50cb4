"""Finite differences measure slopes of smooth, kinked and noisy functions."""

from __future__ import annotations

import numpy as np
import pytest
from caffe_metric.gradients import finite_differences

TOLERANCE = 1e-2


def line(function):
    """A function as `measure` wants it: computed in float32 at float32 points near 1."""

    def at(t):
        point = np.float32(1 + t)
        return float(point) - 1, float(np.float32(function(point)))

    return at


def measured(function, noise=1e-7):
    return finite_differences.measure(line(function), 2.0**-5, noise, TOLERANCE)


@pytest.mark.parametrize(
    ("function", "slope"),
    [
        (lambda x: 3 * x, 3),
        (lambda x: x**3, 3),
        (np.exp, np.e),
        (lambda x: np.sin(20 * x), 20 * np.cos(20)),
        (lambda x: np.float32(7), 0),
    ],
)
def test_smooth(function, slope):
    found = measured(function)
    assert not found.kink
    assert found.value == pytest.approx(slope, rel=1e-3, abs=1e-4)


def test_kink_at_the_point():
    assert measured(lambda x: np.abs(x - 1)).kink
    assert measured(lambda x: np.maximum(x - 1, 0)).kink


def test_jump_at_the_point():
    assert measured(lambda x: np.float32(x >= 1)).kink


def test_kink_nearby_is_stepped_over_and_counted():
    found = measured(lambda x: 2 * x + 5 * np.maximum(x - 1.003, 0))
    assert not found.kink
    assert found.crossings > 0
    assert found.value == pytest.approx(2, rel=TOLERANCE)


def test_rounding_noise_is_recognised(rng):
    """The standard deviation of noise on a smooth trend, within a factor of 2 of nine values."""
    trend = np.linspace(0, 1, 9) ** 2 * 1e-6
    estimates = [
        finite_differences.rounding_noise(trend + rng.normal(0, 1e-5, 9)) for _ in range(200)
    ]
    assert 0.5e-5 < np.median(estimates) < 2e-5
    assert finite_differences.rounding_noise(list(trend)) < 1e-7


def test_noise_widens_the_grain():
    assert measured(lambda x: x, noise=1e-3).grain > 1000 * measured(lambda x: x, 1e-7).grain / 2
