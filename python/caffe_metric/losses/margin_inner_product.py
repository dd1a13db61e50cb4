"""MarginInnerProduct: logits from unit weights, the target's with a margin, and their gradient.

Beside the logits no array of M x C is made: a pass is a matrix product and a sweep over the M
target logits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from caffe_metric.rules.reference.distance import divide, row_norms
from caffe_metric.rules.reference.margin import target_cosines

# Weight rows whose gradient is computed at a time.
CLASSES = 4096


@dataclass
class Pass:
    """What a forward pass found, for the backward pass; one number a row of the batch."""

    norms: np.ndarray  # ||x||
    cosine: np.ndarray  # c of the target
    value: np.ndarray  # f(c)
    slope: np.ndarray  # f'(c)
    weight_norms: np.ndarray | None  # C, where the weights are not of unit length; 1 of a zero row
    rule: tuple  # m, lambda, angular margin, cosine margin
    targets: tuple  # the rows that have a target, and their targets
    target_norms: np.ndarray  # ||w_y||, without normalize_weights; else 1


def annealed_lambda(parameters, t: int) -> float:
    """lambda of the t-th forward pass: max(base (1 + gamma t)^-power, lambda_min)."""
    annealed = parameters.base * (1 + parameters.gamma * t) ** -parameters.power
    return max(annealed, parameters.lambda_min)


def scale_to_unit_rows(weights: np.ndarray) -> None:
    """In place. Rows that are of unit length to rounding, or zero, stay as they are."""
    squares = np.einsum("ck,ck->c", weights, weights)
    rounding = 1e-6 if weights.dtype == np.float32 else 4e-15
    rows = np.flatnonzero((np.abs(squares - 1) > rounding) & (squares > 0))
    if len(rows) == len(weights):
        weights /= np.sqrt(squares)[:, None]
    else:
        weights[rows] /= np.sqrt(squares[rows])[:, None]


def forward(parameters, rule, x, weights, labels, logits, unit_weights: bool, backend) -> Pass:
    """Writes the logits (M x C).

    parameters    fields of MarginInnerProductParameter
    rule          (m, lambda, angular margin, cosine margin), of the target
    x             M x K, weights C x K, labels M integers, negative where a row has no target
    unit_weights  whether the weights count as they are; else they are divided by their norms
    """
    rows = np.flatnonzero(labels >= 0)
    targets = rows, labels[rows]
    norms = row_norms(x)
    np.matmul(x, weights.T, out=logits)
    weight_norms = None
    if not unit_weights:
        weight_norms = row_norms(weights)
        weight_norms[weight_norms == 0] = 1
        logits /= weight_norms
    target_norms = np.ones_like(norms)
    if not parameters.normalize_weights:
        target_norms[rows] = row_norms(weights[labels[rows]])
    cosine = np.zeros_like(norms)
    cosine[rows] = target_cosines(logits[targets], norms[rows] * target_norms[rows])
    value, slope = backend.target_curve(*rule, cosine)
    factor = _row_factor(parameters, norms)
    if factor is not None:
        logits *= factor[:, None]
    found = Pass(norms, cosine, value, slope, weight_norms, rule, targets, target_norms)
    logits[targets] = (target_length(parameters, found) * value)[rows]
    return found


def backward(parameters, found: Pass, x, weights, top_diff, dx=None, dw=None) -> None:
    """Writes dx (M x K) and adds to dw (C x K), each where it is given.

    top_diff is changed on the way and restored.
    """
    rows = found.targets[0]
    target = np.zeros_like(found.norms)
    target[rows] = top_diff[found.targets]
    reference = parameters.gradient == "REFERENCE"
    if reference:
        of_weight, of_feature = _reference_gradient(found)
    else:
        of_weight, of_feature = found.slope, found.value - found.cosine * found.slope
    of_feature = target * of_feature * found.target_norms
    if dw is not None and reference:
        _add_products(top_diff, x, None, dw, found.weight_norms)
    top_diff[found.targets] = (target * of_weight)[rows]
    try:
        if dx is not None:
            _feature_gradient(parameters, found, x, weights, top_diff, of_feature, dx)
        if dw is not None and not reference:
            factor = _row_factor(parameters, found.norms)
            scaled = x if factor is None else factor[:, None] * x
            unit = weights if parameters.normalize_weights else None
            _add_products(top_diff, scaled, unit, dw, found.weight_norms)
            if unit is None:
                _add_length_gradient(parameters, found, of_feature, weights, dw)
    finally:
        top_diff[found.targets] = target[rows]


def radius(parameters, norms):
    """The length that a feature counts with; 0 for a zero feature."""
    return np.where(norms > 0, 1, norms) if parameters.normalize_features else norms


def target_length(parameters, found: Pass):
    """What the targets' cosines are multiplied by."""
    length = radius(parameters, found.norms) * found.target_norms
    return found.norms.dtype.type(parameters.scale) * length


def _add_length_gradient(parameters, found: Pass, of_feature, weights, dw) -> None:
    """L-Softmax: the target's logit is longer with its weights, along them."""
    rows, labels = found.targets
    length = weights.dtype.type(parameters.scale) * radius(parameters, found.norms)
    along = divide(length * of_feature, found.target_norms * found.target_norms)
    np.add.at(dw, labels, along[rows, None] * weights[labels])


def _row_factor(parameters, norms):
    """What the products x . w of a row are multiplied by; None for 1."""
    if parameters.normalize_features:
        return divide(norms.dtype.type(parameters.scale), norms)
    if parameters.scale != 1:
        return np.full_like(norms, parameters.scale)
    return None


def _reference_gradient(found: Pass):
    """SphereFace's published coefficients of the unit weight and the unit feature.

    c_w = psi' and c_x = (psi - c psi') / ||x|| are divided by sqrt(c_w^2 + c_x^2), then blended.
    """
    _, lamda, _, _ = found.rule
    # psi and psi' out of f = (lambda c + psi) / (1 + lambda)
    psi = found.value * (1 + lamda) - lamda * found.cosine
    slope = found.slope * (1 + lamda) - lamda
    of_x = divide(psi - found.cosine * slope, found.norms)
    share = divide(np.ones_like(slope), np.hypot(slope, of_x) * (1 + lamda))
    return share * slope + lamda / (1 + lamda), share * of_x * found.norms


def _feature_gradient(parameters, found, x, weights, a, along_feature, dx):
    if found.weight_norms is None:
        np.matmul(a, weights, out=dx)
    else:
        np.matmul(a / found.weight_norms, weights, out=dx)
    inverse = divide(np.ones_like(found.norms), found.norms)
    unit = x * inverse[:, None]
    if parameters.normalize_features:  # orthogonal to x; the f - c f' term is along it
        dx -= np.einsum("mk,mk->m", dx, unit)[:, None] * unit
        dx *= (x.dtype.type(parameters.scale) * inverse)[:, None]
    else:
        dx += along_feature[:, None] * unit
        dx *= x.dtype.type(parameters.scale)
    dx[found.norms == 0] = 0


def _add_products(a, x, weights, dw, weight_norms=None) -> None:
    """dw += a^T x over the weights' norms, a strip of classes at a time.

    Less its part along the weights, where they are given; the norms are 1 where they are not.
    """
    for start in range(0, len(dw), CLASSES):
        part = slice(start, start + CLASSES)
        gradient = a[:, part].T @ x
        if weights is not None:
            unit = weights[part]
            if weight_norms is not None:
                unit = unit / weight_norms[part, None]
            gradient -= np.einsum("ck,ck->c", gradient, unit)[:, None] * unit
        if weight_norms is not None:
            gradient /= weight_norms[part, None]
        dw[part] += gradient


def neither_easy_nor_hard(parameters, found: Pass, logits, labels) -> np.ndarray:
    """The rows that `semihard` gives a gradient.

    Easy rows are right with the margin; hard rows, if m > 1, wrong even without it. Right: the
    label is the argmax, the lowest index on a tie.
    """
    rows = np.arange(len(labels))
    best = logits.argmax(axis=1)
    wanted = best != labels
    if found.rule[0] > 1:
        plain = target_length(parameters, found) * found.cosine
        other = logits[rows, best]
        wanted &= (plain > other) | ((plain == other) & (labels < best))
    return wanted


def place_samples(x, weights, labels, key: int, backend) -> None:
    """Easy Triplet: half of the batch's classes are given the unit feature of their last sample."""
    classes, last = np.unique(labels[::-1], return_index=True)
    last = (len(labels) - 1 - last)[classes >= 0]
    classes = classes[classes >= 0]
    norms = row_norms(x)[last]
    chosen = backend.coin(key, classes) & (norms > 0)
    weights[classes[chosen]] = x[last[chosen]] / norms[chosen, None]
