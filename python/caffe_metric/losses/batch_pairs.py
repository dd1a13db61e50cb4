"""A loss over the pairs of a batch: each row of it, the anchor, meets all others, and the rows of a
memory of earlier batches where there is one, which get no gradient. Or proxies are the anchors.

The engine of include/caffe/layers/batch_loss_layer.hpp, for arrays: a strip of the similarities or
distances of a batch is made at a time, a rule (rules/) makes the anchors' losses and slopes of it,
and these the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from caffe_metric.rules.reference.distance import Distance
from caffe_metric.rules.reference.strips import STRIP

TOO_LARGE = "the features are too large: a distance of two rows is beyond the largest number"


@dataclass
class PairSums:
    """Sums over the anchors' losses, and over the numbers v of the pairs that they met."""

    anchors: int
    reduction: str
    loss: float = 0.0
    active: int = 0
    same: float = 0
    other: float = 0
    same_v: float = 0.0
    other_v: float = 0.0

    def normalizer(self, mode: str | None) -> float:
        """The divisor. A mode of LossParameter replaces that of a mean over anchors."""
        own = {"as it is": 1, "pairs": self.same / 2}
        if self.reduction in own:
            return max(1, own[self.reduction])
        modes = {"FULL": "anchors", "BATCH_SIZE": "anchors", "VALID": "active"}
        if mode == "NONE":
            return 1
        return max(1, getattr(self, modes.get(mode, self.reduction)))

    def tops(self, normalizer: float) -> tuple[float, float, float, float]:
        """The loss, the fraction of anchors with one, mean v of same and of other pairs."""
        return (
            self.loss / normalizer,
            self.active / max(1, self.anchors),
            self.same_v / max(1, self.same),
            self.other_v / max(1, self.other),
        )


def batch_pairs(kind: str, parameters, x, labels, backend, memory=None, proxies=None):
    """The sums over a batch, and a function that gives the gradient of the sum of losses.

    kind        the type of the layer, parameters: the fields of its message
    x, labels   N x D features, float32 or float64, C-contiguous; N labels of the same type
    memory      (rows, labels) of earlier batches
    proxies     C x D, of the classes 0, 1 ... C - 1: the anchors; else they are the rows

    The gradient is N x D, of proxies and rows (C + N) x D. A batch without a pair of one class, or
    without one of two, has loss 0 and gradient 0. Raises ValueError where a distance is not finite.
    """
    rows, first = x, 0
    if proxies is not None:
        rows, first = np.concatenate((proxies, x)), len(proxies)
    elif memory is not None and len(memory[0]):
        rows, labels = np.concatenate((x, memory[0])), np.concatenate((labels, memory[1]))
    anchors = first or len(x)
    rule = backend.rule_rows(kind, parameters, labels, len(x), first)
    with np.errstate(over="ignore", invalid="ignore"):
        batch = backend.GramDistances(Distance(rule.measure), np.ascontiguousarray(rows))
    gradient = backend.GramGradient(batch)
    sums = PairSums(anchors, rule.reduction)
    step = max(1, STRIP // max(1, len(labels)))
    strips = [np.arange(i, min(i + step, anchors)) for i in range(0, anchors, step)]

    def sweep(strip):
        v = batch.strip(strip, first)
        if not np.isfinite(v).all():
            raise ValueError(TOO_LARGE)
        rule.fold(v, strip[0])
        return v

    # Of one strip the measures are still there for the slopes.
    kept = [sweep(strip) for strip in strips][:1] if rule.two_sweeps else []
    if rule.two_sweeps:
        rule.meet()
    for strip in strips:
        if rule.two_sweeps:
            v = kept[0] if len(strips) == 1 else batch.strip(strip, first)
        else:
            v = sweep(strip)
        losses = rule.slope(v, strip[0], True)
        sums.loss += float(losses.sum(dtype=np.float64))
        sums.active += int(np.count_nonzero(losses > 0))
        gradient.add_weights(strip, v, first, None if first else len(x))
    sums.same, sums.other, sums.same_v, sums.other_v = rule.pairs
    if not (sums.same and sums.other):
        sums.loss, sums.active = 0.0, 0
        return sums, lambda: np.zeros_like(rows[: first + len(x)])
    return sums, lambda: gradient.result()[: first + len(x)]
