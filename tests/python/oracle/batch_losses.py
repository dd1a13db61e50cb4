"""The losses over the pairs of a batch, in loops over float64 numbers.

Each takes rows x (N x D), labels and parameters by name, and gives (loss, fraction of anchors with
loss > 0, mean v of same pairs, mean v of other pairs), v the similarity or distance that the loss
is made of. `memory` is (rows, labels) of earlier batches, met as further rows.
"""

from __future__ import annotations

import math


def unit(row):
    """row / ||row||; a row of zeros stays."""
    norm = math.sqrt(sum(float(a) ** 2 for a in row))
    return [float(a) / norm if norm else 0.0 for a in row]


def cosine(u, v):
    return sum(a * b for a, b in zip(unit(u), unit(v)))


def distance(u, v):
    return math.sqrt(sum((float(a) - float(b)) ** 2 for a, b in zip(u, v)))


def unit_distance(u, v):
    return distance(unit(u), unit(v))


def log_sum(values):
    """ln sum e^v; -inf of nothing."""
    greatest = max(values, default=-math.inf)
    if greatest == -math.inf:
        return greatest
    return greatest + math.log(sum(math.exp(v - greatest) for v in values))


def log_one_plus(values):
    """ln(1 + sum e^v)"""
    return log_sum([0.0, *values])


class Anchors:
    """For each anchor what it meets: [v of same rows], [v of other rows]."""

    def __init__(self, x, labels, measure, memory=None):
        rows, names = [list(row) for row in x], list(labels)
        count = len(rows)
        if memory is not None:
            rows += [list(row) for row in memory[0]]
            names += list(memory[1])
        self.same, self.other = [], []
        for i in range(count):
            met = [(measure(rows[i], rows[j]), names[j]) for j in range(len(rows)) if j != i]
            self.same.append([v for v, name in met if name == names[i]])
            self.other.append([v for v, name in met if name != names[i]])
        self.has_both = any(self.same) and any(self.other)

    def __iter__(self):
        return iter(zip(self.same, self.other))

    def report(self, loss, losses):
        """The four tops; without a same or without an other pair all losses are 0."""
        same = [v for row in self.same for v in row]
        other = [v for row in self.other for v in row]
        active = sum(one > 0 for one in losses) / len(losses) if self.has_both else 0.0
        return (
            loss if self.has_both else 0.0,
            active,
            sum(same) / max(1, len(same)),
            sum(other) / max(1, len(other)),
        )


def mean_of_positive(losses):
    return sum(losses) / max(1, sum(one > 0 for one in losses))


def contrastive(x, labels, positive_margin=0.0, negative_margin=1.0, memory=None):
    anchors = Anchors(x, labels, unit_distance, memory)
    same = [[max(0.0, d - positive_margin) ** 2 for d in row] for row in anchors.same]
    other = [
        [(negative_margin - d) ** 2 for d in row if d < negative_margin] for row in anchors.other
    ]
    losses = [sum(a) + sum(b) for a, b in zip(same, other)]
    same, other = sum(same, []), sum(other, [])
    loss = sum(same) / max(1, len(same)) / 2 + sum(other) / max(1, len(other)) / 2
    return anchors.report(loss, losses)


def multi_similarity(x, labels, alpha=2.0, beta=50.0, base=0.5, epsilon=0.1, memory=None):
    anchors = Anchors(x, labels, cosine, memory)
    losses = []
    for same, other in anchors:
        if epsilon >= 0:
            hardest, easiest = max(other, default=-math.inf), min(same, default=math.inf)
            same = [s for s in same if s - epsilon < hardest]
            other = [s for s in other if s + epsilon > easiest]
        losses.append(
            log_one_plus([-alpha * (s - base) for s in same]) / alpha
            + log_one_plus([beta * (s - base) for s in other]) / beta
        )
    return anchors.report(sum(losses) / len(losses), losses)


def circle(x, labels, margin=0.25, gamma=256.0, memory=None, factors=None):
    """factors: [(of the same rows, of the other rows)] to take as constants, as backward does."""
    anchors = Anchors(x, labels, cosine, memory)
    losses = []
    for place, (same, other) in enumerate(anchors):
        own = circle_factors(same, other, margin) if factors is None else factors[place]
        total = log_sum([gamma * f * (s - margin) for f, s in zip(own[1], other)]) + log_sum(
            [-gamma * f * (s - 1 + margin) for f, s in zip(own[0], same)]
        )
        losses.append(log_one_plus([total]))
    return anchors.report(mean_of_positive(losses), losses)


def circle_factors(same, other, margin):
    return [max(0.0, 1 + margin - s) for s in same], [max(0.0, s + margin) for s in other]


def all_circle_factors(x, labels, margin=0.25, memory=None):
    anchors = Anchors(x, labels, cosine, memory)
    return [circle_factors(same, other, margin) for same, other in anchors]


def sup_con(x, labels, temperature=0.1, memory=None):
    anchors = Anchors(x, labels, cosine, memory)
    losses = []
    for same, other in anchors:
        whole = log_sum([s / temperature for s in same + other])
        terms = [s / temperature - whole for s in same]
        losses.append(-sum(terms) / max(1, len(terms)))
    return anchors.report(mean_of_positive(losses), losses)


def lifted(x, labels, margin=1.0, form="SONG", normalize=False, memory=None):
    measure = unit_distance if normalize else distance
    anchors = Anchors(x, labels, measure, memory)
    if form == "GENERALIZED":
        losses = []
        for same, other in anchors:
            pulled, pushed = log_sum(same), log_sum([margin - d for d in other])
            losses.append(max(0.0, pulled + pushed))
        return anchors.report(sum(losses) / len(losses), losses)
    count = len(x)
    pushed = [log_sum([margin - d for d in other]) for other in anchors.other]
    losses, pairs, total = [0.0] * count, 0, 0.0
    for i in range(count):
        for j in range(i + 1, count):
            if labels[i] != labels[j]:
                continue
            pairs += 1
            term = max(0.0, log_sum([pushed[i], pushed[j]]) + measure(x[i], x[j])) ** 2
            total += term
            losses[i] += term
            losses[j] += term
    return anchors.report(total / max(1, 2 * pairs), losses)


def proxy_anchor(x, labels, proxies, margin=0.1, alpha=32.0):
    """The loss alone."""
    present, pulled, pushed = 0, 0.0, 0.0
    for c, proxy in enumerate(proxies):
        same = [cosine(row, proxy) for row, label in zip(x, labels) if label == c]
        other = [cosine(row, proxy) for row, label in zip(x, labels) if label != c]
        present += bool(same)
        pulled += log_one_plus([-alpha * (s - margin) for s in same])
        pushed += log_one_plus([alpha * (s + margin) for s in other])
    return pulled / max(1, present) + pushed / len(proxies)


def center(x, labels, centers):
    """The loss, and the published change of the centres (DELTA)."""
    loss, delta = 0.0, [[0.0] * len(row) for row in centers]
    counts = [0] * len(centers)
    for row, label in zip(x, labels):
        c = int(label)
        counts[c] += 1
        for k, value in enumerate(row):
            difference = float(centers[c][k]) - float(value)
            loss += difference**2
            delta[c][k] += difference
    delta = [[d / (1 + n) for d in row] for row, n in zip(delta, counts)]
    return loss / (2 * len(x)), delta
