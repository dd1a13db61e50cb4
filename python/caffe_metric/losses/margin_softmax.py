"""MarginSoftmaxLoss: MarginInnerProduct, softmax and cross entropy, a strip of classes at a time.

A row's logits are folded to their greatest number and a sum (online softmax: Milakov & Gimelshein
2018, algorithm 3); backward makes a strip's logits again. No array of M x C is made.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from caffe_metric.losses import margin_inner_product as margin

# Elements of a strip of logits.
STRIP = 1 << 22


@dataclass
class Rows:
    """What is known of each row's logits, of the classes that meet.

    labels index those; outside of them a row has its target elsewhere, below or above. counts: the
    rows that are not ignored. classes: how many meet in all.
    """

    labels: np.ndarray
    counts: np.ndarray
    classes: int
    shift: np.ndarray  # the greatest logit
    sum: np.ndarray  # of exp(z - shift)
    total: np.ndarray  # of z
    before: np.ndarray  # the greatest logits of the classes below and above the target
    after: np.ndarray
    target: np.ndarray  # the target's logit
    plain: np.ndarray  # and that without a margin
    passes: list = field(default_factory=list)  # of the strips: part, Pass

    @classmethod
    def start(cls, labels, counts, classes):
        least = [np.full(len(labels), -np.inf) for _ in range(3)]
        zero = [np.zeros(len(labels)) for _ in range(4)]
        state = least[0], zero[0], zero[1], least[1], least[2], zero[2], zero[3]
        return cls(labels, counts, classes, *state)

    def losses(self, smoothing: float) -> np.ndarray:
        """-sum_j q_j ln p_j, q being 1 - smoothing at the target and smoothing spread over all."""
        lost = np.log(self.sum) - (1 - smoothing) * (self.target - self.shift)
        lost -= smoothing * (self.total / self.classes - self.shift)
        return lost[self.counts]

    def right(self, logit) -> np.ndarray:
        """Whether that logit of the target is the greatest, the lowest index on a tie."""
        return (self.before < logit) & (self.after <= logit)


def parts(rows: int, classes: int):
    """The strips, as slices of the classes."""
    width = max(1, min(classes, STRIP // max(1, rows)))
    return [slice(start, min(classes, start + width)) for start in range(0, classes, width)]


def forward(
    parameters, rule, x, weights, rows, labels, unit_weights: bool, backend, counts=None
) -> Rows:
    """The rows' states.

    rows     the rows of the weights that meet, ascending; None: all
    labels   M integers that index those, -1 for a row without a target
    counts   the rows that count; None: those with a target
    The other arguments are those of margin_inner_product.forward.
    """
    classes = len(weights) if rows is None else len(rows)
    found = Rows.start(labels, labels >= 0 if counts is None else counts, classes)
    for part in parts(len(x), classes):
        unit, own, logits = _strip(weights, rows, labels, part, x)
        passed = margin.forward(parameters, rule, x, unit, own, logits, unit_weights, backend)
        found.passes.append((part, passed))
        _fold(found, passed, part, logits, parameters, backend)
    return found


def backward(parameters, found: Rows, x, weights, rows, weight, smoothing, backend, dx, dw) -> None:
    """Adds the gradient to dx (M x K) and, where it is given, to dw (the rows that meet x K).

    weight: what the rows' losses are multiplied by.
    """
    strips = gradients(
        parameters,
        found,
        x,
        weights,
        rows,
        weight,
        smoothing,
        backend,
        dx,
        lambda part: None if dw is None else dw[part],
    )
    for _ in strips:
        pass


def gradients(parameters, found: Rows, x, weights, rows, weight, smoothing, backend, dx, room):
    """The same, a strip at a time: yields it, and what was added to its part of dw, room(part)."""
    one = np.empty_like(x)
    factor = np.where(found.counts, weight / np.where(found.sum > 0, found.sum, 1), 0)
    offset = np.where(found.counts, weight * smoothing / found.classes, 0)
    for part, passed in found.passes:
        unit, own, logits = _strip(weights, rows, found.labels, part, x)
        margin.forward(
            parameters, passed.rule, x, unit, own, logits, passed.weight_norms is None, backend
        )
        logits[~found.counts] = 0
        backend.exponentials(logits, np.where(found.counts, found.shift, 0).astype(x.dtype))
        logits *= factor[:, None].astype(x.dtype)
        logits -= offset[:, None].astype(x.dtype)
        logits[passed.targets] -= x.dtype.type(weight * (1 - smoothing))
        own_dw = room(part)
        margin.backward(parameters, passed, x, unit, logits, None if dx is None else one, own_dw)
        if dx is not None:
            dx += one
        yield part, own_dw


def _strip(weights, rows, labels, part, x):
    """The weights of a strip, its labels, and room for its logits."""
    unit = weights[part] if rows is None else weights[rows[part]]
    own = np.where((labels >= part.start) & (labels < part.stop), labels - part.start, -1)
    return unit, own, np.empty((len(x), len(unit)), x.dtype)


def _fold(found: Rows, passed, part, logits, parameters, backend) -> None:
    rows, targets = passed.targets
    found.plain[rows] = (margin.target_length(parameters, passed) * passed.cosine)[rows]
    found.target[rows] = logits[passed.targets]
    found.total += logits.sum(axis=1, dtype=np.float64)
    below = found.labels >= part.stop  # the whole strip lies below the target
    greatest = logits.max(axis=1)
    shift = np.maximum(found.shift, greatest)
    found.before = np.where(below, np.maximum(found.before, greatest), found.before)
    above = found.labels < part.start
    found.after = np.where(above, np.maximum(found.after, greatest), found.after)
    place = np.arange(logits.shape[1]) - targets[:, None]
    lines = logits[rows]
    before = np.where(place < 0, lines, -np.inf).max(axis=1)
    after = np.where(place > 0, lines, -np.inf).max(axis=1)
    found.before[rows] = np.maximum(found.before[rows], before)
    found.after[rows] = np.maximum(found.after[rows], after)
    with np.errstate(invalid="ignore"):
        found.sum *= np.where(found.shift == shift, 1, np.exp(found.shift - shift))
    found.sum += backend.exponentials(logits, shift.astype(logits.dtype))
    found.shift = shift


def sampled_count(rate: float, classes: int) -> int:
    """ceil(rate * classes), of a float32 rate that may lie a rounding above what is meant."""
    return max(1, int(np.ceil(rate * classes - 1e-6 * rate * classes)))
