"""The margin functions of MarginInnerProduct, of the cosine c of a feature and its class."""

from __future__ import annotations

import numpy as np

# m: the polynomial cos(m theta) of c, its derivative, and the cosines of k pi / m, 0 < k < m.
_MULTIPLE_ANGLE = {
    1: (lambda c: c, lambda c: np.ones_like(c), ()),
    2: (lambda c: 2 * c * c - 1, lambda c: 4 * c, (0.0,)),
    3: (lambda c: (4 * c * c - 3) * c, lambda c: 12 * c * c - 3, (0.5, -0.5)),
    4: (
        lambda c: 8 * c * c * (c * c - 1) + 1,
        lambda c: 16 * c * (2 * c * c - 1),
        (np.sqrt(0.5), 0.0, -np.sqrt(0.5)),
    ),
}


def psi(m: int, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """psi(theta) = (-1)^k cos(m theta) - 2k with k = floor(m theta / pi), and d psi / d c.

    SphereFace (Liu et al. 2017), equation 8, in polynomials of c = cos(theta), with no arccos.
    """
    polynomial, derivative, bounds = _MULTIPLE_ANGLE[m]
    k = sum((c <= c.dtype.type(bound)).astype(c.dtype) for bound in bounds) + np.zeros_like(c)
    sign = 1 - 2 * (k % 2)
    return sign * polynomial(c) - 2 * k, sign * derivative(c)


def additive(angular: float, cosine: float, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """cos(theta + angular) - cosine, and its derivative with respect to c.

    ArcFace (Deng et al. 2019), equation 3, and CosFace (Wang et al. 2018), equation 4. Past
    theta + angular = pi it goes on as c - angular sin(angular) - cosine, which jumps there.
    """
    kind = c.dtype.type
    if angular == 0:
        return c - kind(cosine), np.ones_like(c)
    sine = np.sqrt(np.maximum(1 - c * c, 0))
    turned = c * kind(np.cos(angular)) - sine * kind(np.sin(angular))
    # The slope is infinite at c = 1, where the gradient has no direction.
    slope = kind(np.cos(angular)) + c / np.maximum(sine, kind(1e-6)) * kind(np.sin(angular))
    past = c < -kind(np.cos(angular))
    value = np.where(past, c - kind(angular * np.sin(angular)), turned)
    return value - kind(cosine), np.where(past, 1, slope).astype(c.dtype)


def target_cosines(plain: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Logits without a margin over what their cosines are multiplied by, within [-1, 1].

    NaN stays NaN, and NaN weights show beside a zero feature, too, as in margin_rule.hpp.
    """
    with np.errstate(invalid="ignore"):  # 0 times infinity
        cosines = np.where(length == 0, 0 * plain, plain / np.where(length == 0, 1, length))
    return np.clip(cosines, -1, 1).astype(plain.dtype)


def target_curve(m: int, lamda: float, angular: float, cosine: float, c: np.ndarray):
    """f(c) of the target's logit, and its derivative.

    With an additive margin `additive`, else (lambda c + psi(c)) / (1 + lambda).
    """
    if angular or cosine:
        return additive(angular, cosine, c)
    value, slope = psi(m, c)
    lamda = c.dtype.type(lamda)
    return (lamda * c + value) / (1 + lamda), (lamda + slope) / (1 + lamda)
