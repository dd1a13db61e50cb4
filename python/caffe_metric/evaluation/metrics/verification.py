"""Verification: are two images of one identity? Scores are similarities, larger means same.

A pair is accepted where score >= threshold. FAR is the fraction of different pairs that are
accepted, TAR the fraction of same pairs.
"""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Roc:
    """A ROC: far, tar and threshold, each [T], by falling threshold, from (0, 0) to (1, 1)."""

    far: np.ndarray
    tar: np.ndarray
    threshold: np.ndarray

    def auc(self):
        """The area under the curve: the chance that a same pair outscores a different one."""
        return float(np.sum(np.diff(self.far) * (self.tar[1:] + self.tar[:-1])) / 2)

    def eer(self):
        """The error rate where FAR = 1 - TAR, by linear interpolation on the curve."""
        gap = self.far - (1 - self.tar)
        after = int(np.searchsorted(gap, 0))
        if gap[after] == 0:
            return float(self.far[after])
        weight = -gap[after - 1] / (gap[after] - gap[after - 1])
        return float(self.far[after - 1] + weight * (self.far[after] - self.far[after - 1]))

    def eer_threshold(self):
        """The threshold at which FAR and 1 - TAR are nearest."""
        return float(self.threshold[np.argmin(np.abs(self.far - (1 - self.tar)))])

    def tar_at(self, far):
        """The largest TAR of a threshold whose FAR is at most `far`; no interpolation."""
        return float(self.tar[np.searchsorted(self.far, far, side="right") - 1])

    def threshold_at(self, far):
        """The threshold that gives `tar_at(far)`."""
        return float(self.threshold[np.searchsorted(self.far, far, side="right") - 1])

    def thinned(self, points=2000):
        """The same curve with about so many points, dense at small FAR; for drawing only."""
        if len(self.far) <= points:
            return self
        even = np.linspace(0, 1, points // 2)
        small = np.geomspace(max(self.far[self.far > 0].min(), 1e-9), 1, points // 2)
        wanted = np.searchsorted(self.far, np.concatenate([even, small]))
        kept = np.unique(np.concatenate([[0], np.minimum(wanted, len(self.far) - 1)]))
        return Roc(self.far[kept], self.tar[kept], self.threshold[kept])


def roc(scores, same):
    """The Roc of scores [P] and same [P] (bool). Raises ValueError if either kind is missing."""
    scores, same = np.asarray(scores), np.asarray(same, bool)
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    # A threshold accepts ties together: one point for each distinct score.
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if len(scores) else []
    accepted_same = np.cumsum(same[order])[last]
    return roc_of_counts(accepted_same, np.asarray(last) + 1 - accepted_same, scores[last])


def roc_of_counts(same, different, threshold):
    """The Roc where so many pairs of each kind are accepted at each of the falling thresholds."""
    if not len(same) or not same[-1] or not different[-1]:
        raise ValueError("verification needs pairs of both kinds, same and different")
    return Roc(
        np.append(0.0, different / different[-1]),
        np.append(0.0, same / same[-1]),
        np.append(np.inf, threshold),
    )


def best_threshold(scores, same):
    """The threshold with the highest accuracy: the middle of the gap below the best cut."""
    scores, same = np.asarray(scores, np.float64), np.asarray(same, bool)
    order = np.argsort(-scores, kind="stable")
    scores, same = scores[order], same[order]
    # correct[i]: pairs judged right if the first i are accepted
    correct = np.append(0, np.cumsum(np.where(same, 1, -1))) + np.count_nonzero(~same)
    cut = np.append(True, scores[1:] != scores[:-1])
    correct = np.where(np.append(cut, True), correct, -1)
    best = int(np.argmax(correct))
    above = scores[best - 1] if best else scores[0] + 1
    below = scores[best] if best < len(scores) else scores[-1] - 1
    return float((above + below) / 2)


def fold_accuracies(scores, same, fold):
    """Accuracy in each fold with the threshold chosen on the others; float64 [folds].

    The protocol of Labeled Faces in the Wild (Huang et al. 2007), whose folds come with the pairs.
    fold: integers [P], the fold of each pair.
    """
    scores, same, fold = np.asarray(scores), np.asarray(same, bool), np.asarray(fold)
    folds = np.unique(fold)
    if len(folds) < 2:
        raise ValueError("at least two folds are needed")
    accuracies = []
    for held in folds:
        test = fold == held
        threshold = best_threshold(scores[~test], same[~test])
        accuracies.append(np.mean((scores[test] >= threshold) == same[test]))
    return np.array(accuracies)
