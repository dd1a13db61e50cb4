"""The forward passes that other forks of Caffe have published, in naive NumPy.

Written from the formulas of docs/zoo.md, with loops over rows, in float64.
"""

from __future__ import annotations

import numpy as np


def unit_rows(x, eps=1e-6):
    """Normalize of caffe-windows, over axis 1: x / sqrt(sum x^2 + eps)."""
    out = np.array(x, np.float64)
    for row in out:
        row /= np.sqrt(np.sum(row * row, axis=0) + eps)
    return out


def unit_samples(x, eps=1e-7):
    """NormL2 of SeqFace: the whole sample."""
    out = np.array(x, np.float64)
    for row in out:
        row /= np.sqrt(np.sum(row * row) + eps)
    return out


def product(x, w, normalize=False):
    """InnerProduct, without a bias; normalize divides each row of the weights by its length."""
    w = np.array(w, np.float64)
    if normalize:
        for row in w:
            row /= np.sqrt(np.sum(row * row) + 1e-12)
    return np.array([[np.dot(sample.ravel(), row) for row in w] for sample in x])


def on_target(z, labels, rule):
    """The logits, with a rule for each row's own."""
    out = np.array(z, np.float64)
    for row, label in zip(out, labels):
        row[int(label)] = rule(row[int(label)])
    return out


def cosface(bias):
    """LabelSpecificAdd as the paper has it, without the condition of the code."""
    return lambda c: c + bias


def arcface(m):
    """CosinAddm: past pi - m the line c - m sin m."""

    def rule(c):
        if c > np.cos(np.pi - m):
            return np.cos(np.arccos(np.clip(c, -1, 1)) + m)
        return c - m * np.sin(m)

    return rule


def combined(m2, m3):
    """CombinedMargin with m1 = 1."""
    return lambda c: np.cos(np.arccos(np.clip(c, -1, 1)) + m2) - m3


def large_margin(x, w, labels, m, lam):
    """L-Softmax, Liu et al. 2016, equation 6 and the blend by lambda."""
    z = product(x, w)
    for i, label in enumerate(map(int, labels)):
        length = np.linalg.norm(w[label]) * np.linalg.norm(x[i])
        theta = np.arccos(np.clip(z[i, label] / length, -1, 1))
        k = int(np.floor(m * theta / np.pi))
        psi = (-1) ** k * np.cos(m * theta) - 2 * k
        z[i, label] = (lam * z[i, label] + length * psi) / (1 + lam)
    return z


def softmax_loss(z, labels):
    total = 0.0
    for row, label in zip(z, labels):
        total += np.log(np.sum(np.exp(row - row.max()))) + row.max() - row[int(label)]
    return total / len(z)


def accuracy(z, labels):
    return float(np.mean([int(np.argmax(row)) == int(label) for row, label in zip(z, labels)]))


def center_loss(x, centers, labels):
    total = 0.0
    for row, label in zip(x, labels):
        total += np.sum((row - centers[int(label)]) ** 2)
    return total / (2 * len(x))


def lifted(x, labels, margin):
    """Song et al. 2016, equation 4."""
    n = len(x)
    d = np.array([[np.linalg.norm(a - b) for b in x] for a in np.asarray(x, np.float64)])
    total, pairs = 0.0, 0
    for i in range(n):
        for j in range(i + 1, n):
            if labels[i] != labels[j]:
                continue
            pairs += 1
            around = sum(np.exp(margin - d[i, k]) for k in range(n) if labels[k] != labels[i])
            around += sum(np.exp(margin - d[j, k]) for k in range(n) if labels[k] != labels[j])
            total += max(0.0, np.log(around) + d[i, j]) ** 2
    return total / (2 * pairs)


def triplet(a, p, n, margin):
    """FaceNet's: 1/(2N) sum max(0, m + |a - p|^2 - |a - n|^2)."""
    total = 0.0
    for x, y, z in zip(*(np.asarray(blob, np.float64) for blob in (a, p, n))):
        total += max(0.0, margin + np.sum((x - y) ** 2) - np.sum((x - z) ** 2))
    return total / (2 * len(a))


def triplet_groups(x, negatives, margin):
    """Groups of reference, positive and negatives; 1/(2 groups) sum of hinges."""
    size = 2 + negatives
    total = 0.0
    x = np.asarray(x, np.float64)
    for start in range(0, len(x), size):
        a, p = x[start], x[start + 1]
        for n in x[start + 2 : start + size]:
            total += max(0.0, margin + np.sum((a - p) ** 2) - np.sum((a - n) ** 2))
    return total / (2 * (len(x) // size))


def triplet_all(x, labels, margin):
    """BatchTripletLoss: the mean hinge over all triplets."""
    x = np.asarray(x, np.float64)
    values = []
    for a in range(len(x)):
        for p in range(len(x)):
            for n in range(len(x)):
                if a != p and labels[a] == labels[p] and labels[a] != labels[n]:
                    near, far = np.sum((x[a] - x[p]) ** 2), np.sum((x[a] - x[n]) ** 2)
                    values.append(max(0.0, margin + near - far))
    return np.mean(values)


def batch_norm(x, slope, bias, mean, variance, eps):
    """BN in TEST: the stored statistics."""
    out = np.array(x, np.float64)
    for channel in range(out.shape[1]):
        out[:, channel] = (
            slope[channel] * (out[:, channel] - mean[channel]) / np.sqrt(variance[channel] + eps)
            + bias[channel]
        )
    return out


def depthwise(x, w):
    """A convolution of each channel by itself, without padding."""
    n, c, height, width = x.shape
    _, _, kh, kw = w.shape
    out = np.zeros((n, c, height - kh + 1, width - kw + 1))
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            for channel in range(c):
                patch = x[:, channel, i : i + kh, j : j + kw]
                out[:, channel, i, j] = np.sum(patch * w[channel, 0], axis=(1, 2))
    return out
