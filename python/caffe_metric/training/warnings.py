"""What a loss that stands still tells: embeddings in one point, guessing, numbers that overflow."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

# A loss that stood so long at a telling value makes a warning.
STANDING = 20
# Guessing is where every softmax starts: only one that never leaves it is worth a word.
CHANCE_STANDING = 200
# -ln of the smallest float, where SoftmaxWithLoss cuts: ln(1 / 1.17549435e-38).
OVERFLOW = 87.3365
TOLERANCE = 0.01
PAGE = "docs/troubleshooting.md"


@dataclass
class _Value:
    """A telling value of a loss."""

    loss: str
    value: float
    standing: int
    text: str
    # What counts as standing there: relative to the value.
    least: float = 1 - TOLERANCE
    most: float = 1 + TOLERANCE
    # The collapsed value may be met by chance: every triplet is active then, and no distance left.
    embeddings: bool = False
    # A training that ends there has failed.
    overflow: bool = False


def _collapsed(loss, value):
    text = (
        f"{loss} stands at its value for equal embeddings, {value:.4g}: they collapse "
        f"(a lower base_lr or an easier mining may help; {PAGE}: 'The embeddings collapse')"
    )
    return _Value(loss, value, STANDING, text, embeddings=True)


def _chance(loss, value, classes):
    text = (
        f"{loss} stands at ln {classes} = {value:.4g}, as if it guessed: the net does not learn "
        f"({PAGE}: 'The loss stands at ln C')"
    )
    return _Value(loss, value, CHANCE_STANDING, text)


def _overflow(loss, value, classes):
    # Of a few classes one is guessed right, and its share is missing. A scaled softmax of many
    # begins at half the value.
    least = min(0.8, 0.9 * (1 - 1 / max(2, classes)))
    text = (
        f"{loss} stands near {value:.4g}: the softmax overflows "
        f"(base_lr is too high; {PAGE}: 'The loss stands at 87.3')"
    )
    return _Value(loss, value, STANDING, text, least=least, most=1.001, overflow=True)


class Watch:
    """Reads the losses of every iteration, and says what they tell, each thing once.

    collapsed: {loss: its value when all embeddings are equal}; classes: {softmax loss: (number of
    classes, its weight)}; reports: {top: what it tells}; margins: the softmax losses with a margin.
    """

    def __init__(self, collapsed=None, classes=None, reports=None, margins=()):
        self._values = [_collapsed(loss, value) for loss, value in (collapsed or {}).items()]
        for loss, (count, weight) in (classes or {}).items():
            self._values.append(_overflow(loss, OVERFLOW * weight, count))
            if count > 1 and loss not in margins:
                self._values.append(_chance(loss, math.log(count) * weight, count))
        self._reports = reports or {}
        self._seen = {}
        self._said = set()
        self._apart = False, 0.0

    def read(self, losses, reports) -> list[str]:
        """Takes the losses (by loss) and what tops report (by top) of one iteration."""
        for name, value in losses.items():
            self._seen.setdefault(name, deque(maxlen=CHANCE_STANDING)).append(value)
        told = {self._reports.get(top): value for top, value in reports.items()}
        self._apart = told.get("active", 1.0) < 1 - TOLERANCE, told.get("d_an", 0.0)
        return self._say(lambda value: value.standing)

    def end(self) -> list[str]:
        """The end is as good a moment as any: a short training has stood still all its life."""
        return self._say(self._at_end)

    @property
    def overflows(self) -> bool:
        """Whether a softmax loss stood at its overflow to the end."""
        return any(
            value.overflow and value.loss in self._seen and self._stands(value, self._at_end(value))
            for value in self._values
        )

    def _at_end(self, value):
        return min(value.standing, max(3, len(self._seen[value.loss])))

    def _say(self, standing):
        found = []
        for value in self._values:
            if value.text in self._said or value.loss not in self._seen:
                continue
            if self._stands(value, standing(value)):
                self._said.add(value.text)
                found.append(value.text)
        return found

    def _stands(self, value, count):
        last = list(self._seen[value.loss])[-count:]
        if len(last) < count:
            return False
        if value.embeddings:
            inactive, distance = self._apart
            if inactive or distance > TOLERANCE * value.value:
                return False
        if not value.embeddings:  # one batch is luckier than another
            if value.standing == CHANCE_STANDING and self._leaves(value, last):
                return False
            last = [sum(last) / count]
        return all(value.least <= number / value.value <= value.most for number in last)

    def _leaves(self, value, last):
        """Whether a loss that is on its way passes the value only."""
        half = len(last) // 2
        early, late = sum(last[:half]) / half, sum(last[half:]) / (len(last) - half)
        return abs(early - late) > TOLERANCE * value.value
