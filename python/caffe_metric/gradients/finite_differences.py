"""Slopes of a function that is computed in float32, by central differences in float64.

A step that is too small drowns in the rounding of the function, one that is too large leaves the
straight part or crosses a kink. So each slope is measured with two steps, h and h/2: where the two
agree they are extrapolated (Richardson), where not, the steps shrink, until rounding forbids it;
what is then still not one slope is a kink.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SHRINK = 8.0
LEVELS = 5
AGREEMENT = 10  # two steps agree when they differ by the tolerance divided by this


@dataclass(frozen=True)
class Slope:
    """A measured slope.

    value: the central slope.
    grain: how far rounding of the function can move `value`.
    crossings: steps at which slopes disagreed, because the function bends or jumps there.
    kink: even the smallest step had no single slope.
    """

    value: float
    grain: float
    crossings: int = 0
    kink: bool = False


def measure(
    line: Callable[[float], tuple[float, float]],
    step: float,
    noise: float,
    tolerance: float,
    scale: float = 0.0,
    expected: float | None = None,
) -> Slope:
    """The slope of a function at 0.

    line(t) gives (s, f(s)), where s is the nearest to t that float32 can represent.
    noise: standard deviation of f's rounding errors. tolerance: relative error that is aimed at.
    scale: slopes that differ by less than tolerance * scale are taken as equal.
    expected: a slope that is far from this one must be the same at the next smaller step, as long
    as rounding allows one: two kinks, or two jumps, may have hidden each other.
    """
    start = line(0.0)[1]
    crossings = 0
    settled = last = None
    confirmed = True
    halved = False
    for level in range(LEVELS):
        points = {k: line(k * step) for k in (-1.0, -0.5, 0.5, 1.0)}
        if level and len({point[0] for point in points.values()} | {0.0}) < 5:
            break  # steps that float32 does not tell apart
        far, near = _between(points, -1.0, 1.0), _between(points, -0.5, 0.5)
        # Four standard deviations of (4 near - far) / 3, whose terms are two values over a width.
        grain = 8 * noise / step
        size = max(abs(near), scale)
        allowed = tolerance * size / AGREEMENT
        left = _one_sided(points, start, -0.5, -1.0)
        right = _one_sided(points, start, 0.5, 1.0)
        last = (4 * near - far) / 3, grain
        if abs(far - near) <= allowed + grain and abs(right - left) <= 4 * (allowed + grain):
            known, settled = settled, last
            reach = tolerance * size + grain
            confirmed = expected is None or abs(last[0] - expected) <= reach
            confirmed = confirmed or (known is not None and abs(last[0] - known[0]) <= reach)
            if confirmed:
                break
        else:
            settled = None
            crossings += 1
        if SHRINK * grain > tolerance * size:
            if settled is None or halved:
                break
            halved = True  # rounding allows no much smaller step, but one to confirm
            step /= 2
            continue
        step /= SHRINK
    value, grain = settled or last
    kink = settled is None or not confirmed
    return Slope(value, grain, crossings, kink)


def rounding_noise(values: list[float]) -> float:
    """Standard deviation of the rounding errors of a function, of its values at equal small steps.

    The differences of some order k contain no trend any more, only noise (Moré & Wild 2011,
    "Estimating computational noise", equation 2.3). The greatest of orders 2 to 4 is taken.
    """
    differences = np.diff(np.asarray(values, np.float64))
    noise = 0.0
    for order in range(2, 5):
        differences = np.diff(differences)
        weight = math.factorial(order) ** 2 / math.factorial(2 * order)
        noise = max(noise, math.sqrt(weight * float(np.mean(differences**2))))
    return noise


def _between(points, a, b) -> float:
    return (points[b][1] - points[a][1]) / (points[b][0] - points[a][0])


def _one_sided(points, start, near, far) -> float:
    """The slope at 0 by points on one side, extrapolated."""
    near_slope = (points[near][1] - start) / points[near][0]
    far_slope = (points[far][1] - start) / points[far][0]
    return 2 * near_slope - far_slope
