"""The loss of a triplet as a function of its two distances, its options, and sums over triplets."""

from __future__ import annotations

from dataclasses import astuple, dataclass, field

import numpy as np

from caffe_metric.rules.reference.distance import Distance

HINGE, RATIO, SOFT = "HINGE", "RATIO", "SOFT"


def triplet_rule(losstype: str, margin: float, d_ap: np.ndarray, d_an: np.ndarray):
    """Loss, d loss / d d_ap and d loss / d d_an of triplets; the distances broadcast.

    HINGE  max(0, d_ap - d_an + margin)         Schroff et al. 2015, equation 3
    RATIO  max(0, 1 - d_an / (d_ap + margin))   Wohlhart & Lepetit 2015, equation 3
    SOFT   log(1 + exp(d_ap - d_an))            Hermans et al. 2017, section 2
    """
    margin = d_ap.dtype.type(margin)
    if losstype == HINGE:
        loss = np.maximum(d_ap - d_an + margin, 0)
        slope = (loss > 0).astype(loss.dtype)
        return loss, slope, -slope
    if losstype == RATIO:
        inverse = 1 / (d_ap + margin)
        ratio = d_an * inverse
        loss = np.maximum(1 - ratio, 0)
        active = (loss > 0).astype(loss.dtype)
        return loss, active * ratio * inverse, -active * inverse
    difference = d_ap - d_an
    # log(1 + e^x) = max(x, 0) + log1p(e^-|x|), and its derivative, with no overflow.
    decay = np.exp(-np.abs(difference))
    slope = np.where(difference >= 0, 1, decay) / (1 + decay)
    return np.maximum(difference, 0) + np.log1p(decay), slope, -slope


@dataclass(frozen=True)
class TripletOptions:
    """The parameters of TripletLoss that say what a triplet costs."""

    losstype: str = "HINGE"
    margin: float = 1.0
    use_pair: bool = False
    swap: bool = False
    distance: Distance = field(default_factory=Distance)

    @classmethod
    def of(cls, parameters) -> TripletOptions:
        """From the parsed fields of TripletLossParameter."""
        distance = Distance(parameters.distance, parameters.p, parameters.eps)
        return cls(
            parameters.losstype,
            parameters.margin,
            parameters.use_pair,
            parameters.swap,
            distance,
        )


@dataclass
class TripletSums:
    """Sums over triplets: weighted loss, how many, how many with a loss > 0, distances."""

    loss: float = 0.0
    count: int = 0
    active: int = 0
    d_ap: float = 0.0
    d_an: float = 0.0
    # Of a mined batch: what the second to fourth tops report.
    means: tuple[float, float, float] | None = None

    def __add__(self, other: TripletSums) -> TripletSums:
        return TripletSums(*(x + y for x, y in zip(astuple(self)[:5], astuple(other)[:5])))

    def tops(self, normalizer: float) -> tuple[float, float, float, float]:
        """Loss, fraction of triplets with a loss > 0, mean d_ap, mean d_an; 0 of no triplet."""
        count = max(self.count, 1)
        means = self.means or (self.active / count, self.d_ap / count, self.d_an / count)
        return self.loss / normalizer, *means

    def normalizer(self, mode: str | None, groups: int, default: float) -> float:
        """Z: `default` where the mode is None; `groups` is that of BATCH_SIZE."""
        return {
            None: default,
            "FULL": max(self.count, 1),
            "VALID": max(self.active, 1),
            "BATCH_SIZE": max(groups, 1),
            "NONE": 1,
        }[mode]
