"""TripletLoss: distances, losses, layouts and what mining may select, in loops.

A triplet is (anchor, positive, negative), each a vector. A loss is computed from a list of terms;
`Pool` says how the sum is normalised and what the further tops show.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from equal_lengths import zip_equal


def distance(x, y, kind="SQUARED_L2", p=2.0, eps=1e-6):
    x, y = [float(v) for v in x], [float(v) for v in y]
    if kind == "COSINE":
        dot = sum(a * b for a, b in zip_equal(x, y))
        length = math.sqrt(sum(a * a for a in x)) * math.sqrt(sum(b * b for b in y))
        return 1 - dot / length if length else 1.0
    if kind == "LP":
        return sum(abs(a - b + eps) ** p for a, b in zip_equal(x, y)) ** (1 / p)
    square = sum((a - b) ** 2 for a, b in zip_equal(x, y))
    return square if kind == "SQUARED_L2" else math.sqrt(square)


def term(losstype, d_ap, d_an, margin):
    if losstype == "HINGE":
        return max(0.0, d_ap - d_an + margin)
    if losstype == "RATIO":
        return max(0.0, 1 - d_an / (d_ap + margin))
    difference = d_ap - d_an
    # Above 700 exp overflows; there log(1 + exp(x)) is x to the last bit.
    return difference if difference > 700 else math.log1p(math.exp(difference))


@dataclass
class Options:
    margin: float = 1.0
    losstype: str = "HINGE"
    num_negatives: int = 1
    use_pair: bool = False
    distance: str = "SQUARED_L2"
    p: float = 2.0
    eps: float = 1e-6
    swap: bool = False
    mining: str = "SEMIHARD"

    def d(self, x, y):
        return distance(x, y, self.distance, self.p, self.eps)


@dataclass
class Result:
    loss: float
    active: float
    d_ap: float
    d_an: float


def reduce(options, groups, own, batch_size, normalization=None):
    """groups: a list of (weight, anchor, positive, [negatives]); use_pair counts once a group.

    own: the default normaliser, a number, or "active" for the number of terms > 0.
    """
    total, active, selected, sum_ap, sum_an = 0.0, 0, 0, 0.0, 0.0
    for weight, anchor, positive, negatives in groups:
        d_ap = options.d(anchor, positive)
        for negative in negatives:
            d_an = options.d(anchor, negative)
            if options.swap:
                d_an = min(d_an, options.d(positive, negative))
            loss = term(options.losstype, d_ap, d_an, options.margin)
            total += weight * loss
            active += loss > 0
            selected += 1
            sum_ap += d_ap
            sum_an += d_an
        if options.use_pair:
            total += weight * d_ap
    normaliser = {
        None: max(active, 1) if own == "active" else own,
        "FULL": max(selected, 1),
        "VALID": max(active, 1),
        "BATCH_SIZE": batch_size,
        "NONE": 1,
    }[normalization]
    count = max(selected, 1)
    return Result(total / normaliser, active / count, sum_ap / count, sum_an / count)


def one_bottom(options, x, normalization=None):
    """Groups of anchor, positive, negatives. Z = 2 x groups."""
    size = 2 + options.num_negatives
    groups = [
        (1.0, x[start], x[start + 1], list(x[start + 2 : start + size]))
        for start in range(0, len(x), size)
    ]
    return reduce(options, groups, 2 * len(groups), len(groups), normalization)


def three_bottoms(options, anchors, positives, negatives, weights=None, normalization=None):
    """Row i of each. Z = 2 N."""
    weights = [1.0] * len(anchors) if weights is None else [float(w) for w in np.ravel(weights)]
    groups = [(weights[i], anchors[i], positives[i], [negatives[i]]) for i in range(len(anchors))]
    return reduce(options, groups, 2 * len(anchors), len(anchors), normalization)


def of_rows(options, x, labels, triplets, normalization=None):
    """A mined batch, of (a, p, n) row numbers. Z = number of triplets with a loss > 0.

    active is their share of all pairs (a, p); HARDEST: of all rows; ALL: of all triplets. d_ap and
    d_an are over all pairs of one class, and of two.
    """
    groups = [(1.0, x[a], x[p], [x[n]]) for a, p, n in triplets]
    result = reduce(options, groups, "active", len(x), normalization)
    pairs = {True: [], False: []}
    for i in range(len(x)):
        for j in range(len(x)):
            if i != j:
                pairs[bool(labels[i] == labels[j])].append(options.d(x[i], x[j]))
    whole = {"ALL": len(triplets), "HARDEST": len(x)}.get(options.mining, len(pairs[True]))
    active = result.active * len(triplets) / max(whole, 1)
    same, others = (sum(d) / max(len(d), 1) for d in (pairs[True], pairs[False]))
    return Result(result.loss, active, same, others)


def candidates(options, x, labels):
    """{(a, p): [n, ...]} of the negatives that `mining` may take, for HARDEST the one of each a."""
    rows = range(len(x))
    d = [[options.d(x[i], x[j]) for j in rows] for i in rows]
    found = {}
    for a in rows:
        positives = [p for p in rows if p != a and labels[p] == labels[a]]
        negatives = [n for n in rows if labels[n] != labels[a]]
        if options.mining == "HARDEST":
            if positives and negatives:
                farthest = max(positives, key=lambda p, a=a: (d[a][p], -p))
                closest = min(negatives, key=lambda n, a=a: (d[a][n], n))
                found[a, farthest] = [closest]
            continue
        for p in positives:
            found[a, p] = [
                n
                for n in negatives
                if options.mining == "ALL"
                or (
                    d[a][n] < d[a][p] + options.margin
                    and (options.mining == "VIOLATING" or d[a][p] < d[a][n])
                )
            ]
    return found


def all_triplets(options, x, labels):
    """Every triplet of the candidates: what ALL and HARDEST select."""
    found = candidates(options, x, labels)
    return [(a, p, n) for (a, p), negatives in found.items() for n in negatives]
