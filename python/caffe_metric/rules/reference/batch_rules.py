"""The losses of an anchor over the rows that it meets, and their slopes: NumPy, a strip at a time.

A rule has, of v (B x M) for B anchors and M rows, and of which of these are of the anchor's class
(itself left out) and of other classes,

    survey(v, same, other)        sees a strip, where all are to be seen before the first loss
    rows(begin, v, same, other)   (the loss of each anchor, slopes d loss / d v)

as include/caffe_metric/batch_rule.hpp has it. Every log of a sum is taken by its greatest term.
"""

from __future__ import annotations

import numpy as np

from caffe_metric.rules.reference.distance import L2, SIMILARITY, UNIT_L2, divide


class RuleRows:
    """A rule at work on strips of the measures of a batch, anchors in their order.

    With proxies the anchors are these, proxy c of class c, and meet all rows; else anchor i is row
    i. measure: what v is. reduction: what the sum of the losses is divided by, see
    losses/batch_pairs.py. pairs: the numbers of same and of other pairs that were folded, and
    the sums of their v. two_sweeps: whether all is folded before the first slope.
    """

    def __init__(self, rule, labels, proxies: int):
        self.rule, self.labels, self.proxies = rule, labels, proxies
        self.measure, self.reduction = rule.measure(), rule.REDUCTION
        self.two_sweeps = rule.SURVEYS
        self.pairs = np.zeros(4)

    def fold(self, v, begin: int) -> None:
        same, other = self._kinds(v, begin)
        sums = (float(np.sum(v, where=kind, dtype=np.float64)) for kind in (same, other))
        self.pairs += (int(same.sum()), int(other.sum()), *sums)
        self.rule.survey(v, same, other)

    def meet(self) -> None:
        """All strips are folded."""

    def slope(self, v, begin: int, write: bool):
        """The losses of a strip's anchors; v becomes the weights of GramGradient."""
        losses, slopes = self.rule.rows(begin, v, *self._kinds(v, begin))
        if self.measure == SIMILARITY:
            np.negative(slopes, out=v)
        else:
            v[...] = divide(slopes, v)
        return losses

    def _kinds(self, v, begin: int):
        rows = np.arange(begin, begin + len(v))
        if self.proxies:
            same = rows[:, None] == self.labels
            return same, ~same
        same = self.labels[rows, None] == self.labels
        other = ~same
        same[rows - begin, rows] = False
        return same, other


def rule_rows(kind: str, parameters, labels, anchors: int, proxies: int = 0) -> RuleRows:
    """The rule of a layer's type, for so many anchors of a batch with these labels."""
    return RuleRows(RULES[kind](parameters), labels, proxies)


class Rule:
    """What a rule has unless it says otherwise."""

    REDUCTION = "anchors"
    SURVEYS = False

    def __init__(self, parameters):
        self.parameters = parameters

    def measure(self) -> str:
        return SIMILARITY

    def survey(self, v, same, other) -> None:
        """Sees a strip."""

    def rows(self, begin, v, same, other):
        raise NotImplementedError


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

    REDUCTION = "as it is"
    SURVEYS = True

    def __init__(self, parameters):
        super().__init__(parameters)
        self.same = self.other = 0

    def measure(self):
        return UNIT_L2

    def survey(self, v, same, other):
        self.same += int(same.sum())
        self.other += int((other & (v < self.parameters.negative_margin)).sum())

    def rows(self, begin, v, same, other):
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

    def rows(self, begin, v, same, other):
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

    REDUCTION = "active"

    def rows(self, begin, v, same, other):
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

    REDUCTION = "active"

    def rows(self, begin, v, same, other):
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

    def rows(self, begin, v, same, other):
        pull, pulled = log_sum(v, same)
        push, pushed = log_sum(v.dtype.type(self.parameters.margin) - v, other)
        loss = np.maximum(pull + push, 0)
        return loss, (pulled - pushed) * (loss > 0)[:, None]


class SongLifted(GeneralizedLifted):
    """1/(2 |P|) sum over same pairs i < j of max(0, J)^2, J = ln(sum over N_i of e^(m - d_ik) +
    sum over N_j of e^(m - d_jk)) + d_ij: Song et al. 2016, equation 4.

    An anchor's part of the sum is 1/4 sum_j max(0, J_ij)^2: each pair has two anchors.
    """

    REDUCTION = "pairs"
    SURVEYS = True

    def __init__(self, parameters):
        super().__init__(parameters)
        self.pushes = []

    def survey(self, v, same, other):
        self.pushes.append(log_sum(v.dtype.type(self.parameters.margin) - v, other)[0])

    def rows(self, begin, v, same, other):
        pushes = np.concatenate(self.pushes)
        own, pushed = log_sum(v.dtype.type(self.parameters.margin) - v, other)
        with np.errstate(invalid="ignore"):
            both = np.logaddexp(own[:, None], pushes[None])
            share = np.where(np.isfinite(both), np.exp(own[:, None] - both), 0)
        terms = np.where(same, np.maximum(both + v, 0), 0)
        loss = 0.25 * np.einsum("ij,ij->i", terms, terms)
        pull = np.einsum("ij,ij->i", terms, share)
        return loss, (0.5 * terms - pull[:, None] * pushed).astype(v.dtype)


class ProxyAnchor(Rule):
    """Of a proxy: 1/|C+| ln(1 + sum of its class of e^-alpha(s - margin)), for the classes C+ in
    the batch, + 1/|C| ln(1 + sum of the others of e^alpha(s + margin)): Kim et al. 2020, eq. 4."""

    REDUCTION = "as it is"
    SURVEYS = True

    def __init__(self, parameters):
        super().__init__(parameters)
        self.present = self.classes = 0

    def survey(self, v, same, other):
        self.present += int(same.any(axis=1).sum())
        self.classes += len(v)

    def rows(self, begin, v, same, other):
        alpha, margin = v.dtype.type(self.parameters.alpha), v.dtype.type(self.parameters.margin)
        pull, pulled = log_sum(-alpha * (v - margin), same)
        push, pushed = log_sum(alpha * (v + margin), other)
        present, classes = max(1, self.present), max(1, self.classes)
        loss = soft_plus(pull) / present + soft_plus(push) / classes
        slopes = pushed * (sigmoid(push) / classes)[:, None]
        slopes -= pulled * (sigmoid(pull) / present)[:, None]
        return loss, (alpha * slopes).astype(v.dtype)


def _lifted(parameters) -> Rule:
    return {"SONG": SongLifted, "GENERALIZED": GeneralizedLifted}[parameters.form](parameters)


RULES = {
    "BatchContrastiveLoss": BatchContrastive,
    "MultiSimilarityLoss": MultiSimilarity,
    "CircleLoss": Circle,
    "SupConLoss": SupCon,
    "LiftedStructureLoss": _lifted,
    "ProxyAnchorLoss": ProxyAnchor,
}
