"""All pairs of rows, as same and different, in bounded memory.

Up to EXACT_PAIRS pairs the scores are kept and sorted. Above, they are counted in 2^20 bins of
[-1, 1]. Above `most` pairs all same pairs are counted, and the different ones of rows drawn at
random with all rows, about `most` of them.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from caffe_metric.evaluation.metrics import verification
from caffe_metric.evaluation.metrics.similarity import BLOCK, TILE, upper_tiles
from caffe_metric.evaluation.metrics.verification import Roc

EXACT_PAIRS = 10_000_000
MOST = 1_000_000_000
HISTOGRAM_BINS = np.linspace(-1, 1, 201)
_BINS = 1 << 20
_CENTRES = (np.arange(_BINS) + 0.5) * (2 / _BINS) - 1
_ROWS = 1 << 16
SAME, DIFFERENT = 0, 1


@dataclasses.dataclass
class Pairs:
    """Scores of pairs: how many of each kind, their Roc, histograms, means and variances.

    Of each kind: same, different. hardest: {kind: [(row, row, score)]}, the worst first.
    of_different: how many different pairs there are, of which counts[1] were measured.
    """

    counts: tuple[int, int]
    of_different: int
    roc: Roc
    histograms: np.ndarray
    means: np.ndarray
    variances: np.ndarray
    hardest: dict[str, list[tuple[int, int, float]]] = dataclasses.field(default_factory=dict)

    def fisher(self) -> float:
        """Fisher's criterion (1936): (m_same - m_different)^2 / (v_same + v_different)."""
        spread = float(self.variances.sum())
        return float((self.means[SAME] - self.means[DIFFERENT]) ** 2 / spread) if spread else 0.0


def listed_pairs(scores, same) -> Pairs:
    """Pairs whose scores [P] and kinds [P] are known. Raises ValueError if a kind is missing."""
    scores, same = np.asarray(scores), np.asarray(same, bool)
    roc = verification.roc(scores, same)
    kinds = [scores[same].astype(np.float64), scores[~same].astype(np.float64)]
    counts = (len(kinds[SAME]), len(kinds[DIFFERENT]))
    histograms = [np.histogram(np.clip(kind, -1, 1), HISTOGRAM_BINS)[0] for kind in kinds]
    moments = np.array([(kind.mean(), kind.var()) for kind in kinds]).T
    return Pairs(counts, counts[DIFFERENT], roc, np.array(histograms), *moments)


def all_pairs(unit, labels, most=MOST, hardest=0, exact=EXACT_PAIRS, seed=0) -> Pairs:
    """Every unordered pair of unit rows [N, D], by cosine similarity.

    hardest: how many of each kind to name. Raises ValueError where a kind is missing.
    """
    labels = np.unique(labels, return_inverse=True)[1].astype(np.int32).reshape(-1)
    total = len(unit) * (len(unit) - 1) // 2
    worst = [_Worst(hardest, -1), _Worst(hardest, 1)]
    tally = _Kept() if total <= exact else _Counted()
    if total <= max(most, exact):
        for rows, columns, scores, wanted in upper_tiles(unit):
            same = labels[rows, None] == labels[columns]
            _add(tally, worst, rows.start + np.arange(len(scores)), columns, scores, same, wanted)
        found = tally.pairs()
    else:
        order = np.argsort(labels, kind="stable")
        same_pairs = 0
        for left, right in _same_pairs(labels, order):
            scores = np.einsum("nd,nd->n", unit[left], unit[right])
            same_pairs += len(scores)
            tally.add(scores, np.ones(len(scores), bool))
            worst[SAME].add(-scores, lambda at, left=left, right=right: (left[at], right[at]))
        drawn = np.random.default_rng(seed).permutation(len(unit))[: -(-most // len(unit))]
        for start in range(0, len(drawn), BLOCK):
            rows = drawn[start : start + BLOCK]
            for first in range(0, len(unit), TILE):
                columns = slice(first, min(first + TILE, len(unit)))
                other = labels[rows, None] != labels[columns]
                scores = unit[rows] @ unit[columns].T
                _add(tally, worst, rows, columns, scores, ~other, other)
        found = tally.pairs()
        found.of_different = total - same_pairs
    for name, kind in zip(("same", "different"), worst):
        found.hardest[name] = kind.pairs()
    return found


def _same_pairs(labels, order):
    """Yields (left, right), arrays of row numbers, until every same pair has come once."""
    sorted_labels = labels[order]
    for step in range(1, len(order)):
        first = np.flatnonzero(sorted_labels[step:] == sorted_labels[:-step])
        if not len(first):
            return
        for start in range(0, len(first), _ROWS):
            part = first[start : start + _ROWS]
            yield order[part], order[part + step]


def _add(tally, worst, rows, columns, scores, same, wanted):
    """Adds a tile. rows: numbers; columns: a slice; wanted: which of its pairs, or None for all."""

    def place(at):
        row, column = np.divmod(at, scores.shape[1])
        return rows[row], columns.start + column

    if worst[SAME].count:
        kept = np.ones(scores.shape, bool) if wanted is None else wanted
        worst[SAME].add(np.where(kept & same, -scores, -np.inf).ravel(), place)
        worst[DIFFERENT].add(np.where(kept & ~same, scores, -np.inf).ravel(), place)
    if wanted is None:
        tally.add(scores.ravel(), same.ravel())
    else:
        tally.add(scores[wanted], same[wanted])


class _Kept:
    """Scores as they are."""

    def __init__(self):
        self.parts = [(np.empty(0, np.float32), np.empty(0, bool))]

    def add(self, scores, same):
        self.parts.append((scores, same))

    def pairs(self) -> Pairs:
        return listed_pairs(*(np.concatenate(part) for part in zip(*self.parts)))


class _Counted:
    """Scores in bins."""

    def __init__(self):
        self.all, self.same = np.zeros(_BINS, np.int64), np.zeros(_BINS, np.int64)

    def add(self, scores, same):
        bins = ((scores + np.float32(1)) * np.float32(_BINS / 2)).astype(np.int32)
        np.clip(bins, 0, _BINS - 1, out=bins)
        self.all += np.bincount(bins, minlength=_BINS)
        self.same += np.bincount(bins[same], minlength=_BINS)

    def pairs(self) -> Pairs:
        counts = np.array([self.same, self.all - self.same])
        kept = np.flatnonzero(self.all)[::-1]
        accepted = np.cumsum(counts[:, kept], axis=1)
        roc = verification.roc_of_counts(*accepted, kept * (2 / _BINS) - 1)
        total = counts.sum(axis=1)
        means = counts @ _CENTRES / total
        variances = np.maximum(counts @ _CENTRES**2 / total - means**2, 0)
        histograms = [np.histogram(_CENTRES, HISTOGRAM_BINS, weights=row)[0] for row in counts]
        same, different = (int(number) for number in total)
        drawn = np.array(histograms).astype(np.int64)
        return Pairs((same, different), different, roc, drawn, means, variances)


class _Worst:
    """The pairs with the greatest keys; a key is sign x score."""

    def __init__(self, count, sign):
        self.count, self.sign = count, sign
        self.keys = np.empty(0, np.float32)
        self.rows = np.empty((0, 2), np.int64)

    def add(self, keys, place):
        """keys [P]; place(numbers of pairs) gives their two row numbers."""
        if not self.count:
            return
        least = self.keys.min() if len(self.keys) == self.count else -np.inf
        better = np.flatnonzero(keys > least)
        if len(better) > self.count:
            better = better[np.argpartition(-keys[better], self.count)[: self.count]]
        rows = np.stack(place(better), axis=1) if len(better) else self.rows[:0]
        joined = np.concatenate([self.keys, keys[better]])
        order = np.argsort(-joined, kind="stable")[: self.count]
        self.keys, self.rows = joined[order], np.concatenate([self.rows, rows])[order]

    def pairs(self):
        return [
            (int(i), int(j), self.sign * float(key)) for (i, j), key in zip(self.rows, self.keys)
        ]
