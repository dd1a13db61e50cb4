"""The losses of an anchor over the rows that it meets, and their slopes: NumPy, a strip at a time.

A rule has

    measure(parameters)  what v is: COSINE, the similarity, or the L2 distance of rows of unit
                         length or as they are
    rows(v, same, other) -> (loss of each anchor, slopes d loss / d v)

v is B x M for B anchors and M rows, `same` and `other` tell which of them are of the anchor's
class (itself left out) and of other classes. Every log of a sum is taken by its greatest term.
"""

from __future__ import annotations

import numpy as np

COSINE, UNIT_L2, L2 = "COSINE", "UNIT_L2", "L2"


class Rule:
    """What a rule has unless it says otherwise."""

    # What the sum of the anchors' losses is divided by: as it is 1, else so many of them.
    OVER = "anchors"
    # Whether all rows have to be seen once before any of them gives its loss.
    SURVEYS = False

    def __init__(self, parameters):
        self.parameters = parameters

    def measure(self) -> str:
        return COSINE

    def survey(self, rows, v, same, other) -> None:
        """Sees a strip; `rows` are the anchors' numbers."""

    def rows(self, rows, v, same, other):
        raise NotImplementedError

    def normalizer(self, mode: str | None, anchors: int, active: int) -> float:
        """The divisor; a mode of LossParameter replaces that of a mean over anchors."""
        counts = {"anchors": anchors, "active": active, "as it is": 1}
        modes = {"FULL": anchors, "BATCH_SIZE": anchors, "VALID": active, "NONE": 1}
        own = mode is None or self.OVER == "as it is"
        return max(1, counts[self.OVER] if own else modes[mode])


def log_sum(v, where):
    """ln sum_j e^v_ij over the chosen j, -inf of none; and each e^v_ij's share of its sum."""
    chosen = np.where(where, v, -np.inf)
    greatest = chosen.max(axis=1, initial=-np.inf)
    shift = np.where(np.isfinite(greatest), greatest, 0)
    shares = np.exp(chosen - shift[:, None].astype(v.dtype))
    sums = shares.sum(axis=1)
    with np.errstate(divide="ignore"):
        total = shift + np.log(sums)
    shares /= np.where(sums > 0, sums, 1)[:, None]
    return total, shares


def soft_plus(v):
    """ln(1 + e^v)"""
    return np.logaddexp(0, v)


def sigmoid(v):
    """The slope of soft_plus."""
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-v))


class BatchContrastive(Rule):
    """1/2 mean over same pairs of max(0, d - m+)^2 + 1/2 mean over other pairs with d < m- of
    (m- - d)^2: Hadsell et al. 2006."""

    OVER = "as it is"
    SURVEYS = True

    def __init__(self, parameters):
        super().__init__(parameters)
        self.same = self.other = 0

    def measure(self):
        return UNIT_L2

    def survey(self, rows, v, same, other):
        self.same += int(same.sum())
        self.other += int((other & (v < self.parameters.negative_margin)).sum())

    def rows(self, rows, v, same, other):
        p = self.parameters
        far = np.where(same, np.maximum(v - v.dtype.type(p.positive_margin), 0), 0)
        near = np.where(other, np.maximum(v.dtype.type(p.negative_margin) - v, 0), 0)
        far_share, near_share = 1 / max(1, self.same), 1 / max(1, self.other)
        loss = 0.5 * far_share * np.einsum("ij,ij->i", far, far)
        loss += 0.5 * near_share * np.einsum("ij,ij->i", near, near)
        slopes = far * v.dtype.type(far_share) - near * v.dtype.type(near_share)
        return loss, slopes


class MultiSimilarity(Rule):
    """1/alpha ln(1 + sum_P e^-alpha(s - base)) + 1/beta ln(1 + sum_N e^beta(s - base)) over the
    pairs that are kept: Wang et al. 2019, equations 7 to 9 and 14."""

    def rows(self, rows, v, same, other):
        p, number = self.parameters, v.dtype.type
        if p.epsilon >= 0:
            hardest = np.where(other, v, -np.inf).max(axis=1, initial=-np.inf)[:, None]
            easiest = np.where(same, v, np.inf).min(axis=1, initial=np.inf)[:, None]
            same = same & (v - number(p.epsilon) < hardest)
            other = other & (v + number(p.epsilon) > easiest)
        pull, pulled = log_sum(-number(p.alpha) * (v - number(p.base)), same)
        push, pushed = log_sum(number(p.beta) * (v - number(p.base)), other)
        loss = soft_plus(pull) / p.alpha + soft_plus(push) / p.beta
        slopes = pushed * sigmoid(push)[:, None] - pulled * sigmoid(pull)[:, None]
        return loss, slopes


class Circle(Rule):
    """ln(1 + sum_N e^(gamma [s + m]+ (s - m)) sum_P e^(-gamma [1 + m - s]+ (s - 1 + m))), the
    factors [ ]+ constant in backward: Sun et al. 2020, equations 6 to 10."""

    OVER = "active"

    def rows(self, rows, v, same, other):
        number = v.dtype.type
        margin, gamma = number(self.parameters.margin), number(self.parameters.gamma)
        near, far = np.maximum(v + margin, 0), np.maximum(1 + margin - v, 0)
        push, pushed = log_sum(gamma * near * (v - margin), other)
        pull, pulled = log_sum(-gamma * far * (v - 1 + margin), same)
        total = push + pull
        slopes = gamma * (near * pushed - far * pulled) * sigmoid(total)[:, None].astype(v.dtype)
        return soft_plus(total), slopes


class SupCon(Rule):
    """-1/|P| sum_P (s / t - ln sum_(P and N) e^(s / t)): Khosla et al. 2020, equation 2."""

    OVER = "active"

    def rows(self, rows, v, same, other):
        scaled = v / v.dtype.type(self.parameters.temperature)
        pull, pulled = log_sum(scaled, same)
        push, pushed = log_sum(scaled, other)
        count = same.sum(axis=1)
        some = count > 0
        mean = np.where(same, scaled, 0).sum(axis=1, dtype=np.float64) / np.maximum(count, 1)
        # What P has among itself, exactly 0 of one row, and what N adds: no small number is lost.
        with np.errstate(invalid="ignore"):
            loss = np.where(count > 1, pull - mean, 0) + soft_plus(push - pull)
            others = sigmoid(push - pull)[:, None]
        slopes = pulled * (1 - others) + pushed * others - same / np.maximum(count, 1)[:, None]
        slopes = np.where(some[:, None], slopes, 0) / self.parameters.temperature
        return np.where(some, loss, 0), slopes.astype(v.dtype)


class GeneralizedLifted(Rule):
    """max(0, ln sum_P e^d + ln sum_N e^(m - d)): Hermans et al. 2017, section 2."""

    def measure(self):
        return UNIT_L2 if self.parameters.normalize else L2

    def rows(self, rows, v, same, other):
        pull, pulled = log_sum(v, same)
        push, pushed = log_sum(v.dtype.type(self.parameters.margin) - v, other)
        loss = np.maximum(pull + push, 0)
        return loss, (pulled - pushed) * (loss > 0)[:, None]


class SongLifted(GeneralizedLifted):
    """1/(2 |P|) sum over same pairs i < j of max(0, J)^2, J = ln(sum over N_i of e^(m - d_ik) +
    sum over N_j of e^(m - d_jk)) + d_ij: Song et al. 2016, equation 4.

    Each pair is met from both of its rows, so that it counts half.
    """

    OVER = "as it is"
    SURVEYS = True

    def __init__(self, parameters):
        super().__init__(parameters)
        self.pushes, self.pairs = {}, 0

    def survey(self, rows, v, same, other):
        push, _ = log_sum(v.dtype.type(self.parameters.margin) - v, other)
        self.pushes.update(zip(rows.tolist(), push))
        self.pairs += int(same.sum())

    def rows(self, rows, v, same, other):
        pushes = np.array([self.pushes[row] for row in range(len(self.pushes))], np.float64)
        own, pushed = log_sum(v.dtype.type(self.parameters.margin) - v, other)
        with np.errstate(invalid="ignore"):
            both = np.logaddexp(own[:, None], pushes[None])
            share = np.where(np.isfinite(both), np.exp(own[:, None] - both), 0)
        terms = np.where(same, np.maximum(both + v, 0), 0)
        # |P| counts a pair once, `pairs` from both rows.
        scale = 1 / max(1, self.pairs)
        loss = 0.5 * scale * np.einsum("ij,ij->i", terms, terms)
        weights = 2 * scale * np.einsum("ij,ij->i", terms, share)
        slopes = scale * terms - weights[:, None] * pushed
        return loss, slopes.astype(v.dtype)


def lifted_structure(parameters):
    return {"SONG": SongLifted, "GENERALIZED": GeneralizedLifted}[parameters.form](parameters)
