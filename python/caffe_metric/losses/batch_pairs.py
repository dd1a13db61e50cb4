"""A loss over the pairs of a batch: each row of it, the anchor, meets all others, and the rows of a
memory of earlier batches where there is one, which get no gradient.

A strip of the similarities or distances of a batch is made at a time; a rule gives the anchors'
losses and their slopes (rules/reference/batch_rules.py); the slopes make the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from caffe_metric.rules.reference import distance
from caffe_metric.rules.reference.batch_rules import COSINE, UNIT_L2
from caffe_metric.rules.reference.strips import strips

TOO_LARGE = "the features are too large: a distance of two rows is beyond the largest number"


@dataclass
class PairSums:
    """Sums over the anchors' losses, and over the numbers v of the pairs that they met."""

    loss: float = 0.0
    anchors: int = 0
    active: int = 0
    same: int = 0
    other: int = 0
    same_v: float = 0.0
    other_v: float = 0.0

    def tops(self, normalizer: float) -> tuple[float, float, float, float]:
        """The loss, the fraction of anchors with one, mean v of same and of other pairs."""
        return (
            self.loss / normalizer,
            self.active / max(1, self.anchors),
            self.same_v / max(1, self.same),
            self.other_v / max(1, self.other),
        )


def batch_pairs(rule, x, labels, backend, memory=None):
    """The sums over a batch, and a function that gives the gradient of the sum of losses, N x D.

    rule    see batch_rules
    x       N x D features, float32 or float64, C-contiguous; labels: N, of the same type
    memory  (rows, labels) of earlier batches

    A batch without a pair of one class, or without one of two, has loss 0 and gradient 0. Raises
    ValueError where a distance is not finite.
    """
    anchors = len(x)
    pairs = _Pairs(rule, x, labels, backend, memory)
    sums = PairSums(anchors=anchors)
    gradient = backend.GramGradient(pairs.batch)
    for _, v, same, other in pairs.strips():
        sums.same += int(same.sum())
        sums.other += int(other.sum())
        sums.same_v += float(np.sum(v, where=same, dtype=np.float64))
        sums.other_v += float(np.sum(v, where=other, dtype=np.float64))
    if not (sums.same and sums.other):
        return sums, lambda: np.zeros_like(x)
    if rule.SURVEYS:
        for rows, v, same, other in pairs.strips():
            rule.survey(rows, v, same, other)
    for rows, v, same, other in pairs.strips():
        losses, slopes = rule.rows(rows, v, same, other)
        sums.loss += float(losses.sum(dtype=np.float64))
        sums.active += int(np.count_nonzero(losses > 0))
        if rule.measure() == COSINE:
            np.negative(slopes, out=slopes)  # d = 1 - s
            v = 1 - v
        gradient.add(rows, v, slopes)
    return sums, lambda: pairs.of_features(gradient.result()[:anchors])


class _Pairs:
    """The strips of a batch: anchors' numbers, v, same, other."""

    def __init__(self, rule, x, labels, backend, memory):
        self.measure, self.anchors = rule.measure(), len(x)
        self.x, self.labels = x, labels
        if memory is not None and len(memory[0]):
            x, self.labels = np.concatenate((x, memory[0])), np.concatenate((labels, memory[1]))
        kind = distance.COSINE if self.measure == COSINE else distance.L2
        if self.measure == UNIT_L2:
            x = distance.unit_rows(x)
        with np.errstate(over="ignore", invalid="ignore"):
            self.batch = backend.GramDistances(distance.Distance(kind), np.ascontiguousarray(x))
        self._only = None

    def strips(self):
        cut = strips(len(self.labels), np.arange(self.anchors))
        if len(cut) == 1:  # the whole is kept
            self._only = self._only or self._strip(cut[0])
            yield self._only
            return
        for rows in cut:
            yield self._strip(rows)

    def _strip(self, rows):
        v = self.batch.strip(rows)
        if not np.isfinite(v).all():
            raise ValueError(TOO_LARGE)
        if self.measure == COSINE:
            v = 1 - v
        same = self.labels[rows, None] == self.labels
        other = ~same
        same[np.arange(len(rows)), rows] = False
        return rows, v, same, other

    def of_features(self, gradient):
        """The gradient by the features, of that by the rows that the distances are of."""
        if self.measure != UNIT_L2:
            return gradient
        norms = distance.row_norms(self.x)[:, None]
        u = distance.divide(self.x, norms)
        gradient = gradient - np.einsum("nd,nd->n", gradient, u)[:, None] * u
        return distance.divide(gradient, norms)
