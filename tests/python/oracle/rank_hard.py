"""RankHardLoss: which negatives may be taken, and the loss of those that were."""

from __future__ import annotations

import numpy as np
from equal_lengths import zip_equal


def similarity(u, v):
    """s(u, v) = -u . v"""
    return -sum(float(a) * float(b) for a, b in zip_equal(u, v))


def candidates(x, labels, anchor, margin):
    """The negatives that violate the margin, hardest (smallest s) first, lowest index on a tie."""
    positive = similarity(x[anchor], x[anchor + 1])
    violating = []
    for j in range(len(x)):
        if labels[j] == labels[anchor]:
            continue
        s = similarity(x[anchor], x[j])
        if positive - s + margin > 0:
            violating.append((s, j))
    return [j for _, j in sorted(violating)]


def numbers(neg_num, hard_ratio, rand_ratio):
    """How many are drawn from the hardest and from the rest, the products in float32."""
    hard = np.float32(neg_num) * np.float32(hard_ratio)
    rest = np.float32(neg_num) * np.float32(rand_ratio)
    return int(np.floor(hard)), int(np.floor(rest))


def loss(x, pair_size, neg_num, margin, taken, normalization=None):
    """taken: {anchor: [negatives]}. Returns (loss, fraction of the Z terms that are > 0)."""
    groups = len(x) // pair_size
    total, active, selected = 0.0, 0, 0
    for i in range(0, len(x), pair_size):
        positive = similarity(x[i], x[i + 1])
        for j in taken[i]:
            for first in (i, i + 1):
                term = max(0.0, positive - similarity(x[first], x[j]) + margin)
                total += term
                active += term > 0
                selected += 1
    own = neg_num * groups * 2
    normaliser = {
        None: own,
        "FULL": max(selected, 1),
        "VALID": max(active, 1),
        "BATCH_SIZE": groups,
        "NONE": 1,
    }[normalization]
    return total / normaliser, active / own
