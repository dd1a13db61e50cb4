"""The second oracle: the formulas in PyTorch, float64, differentiated by autograd."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[torch]'")
functional = torch.nn.functional


def tensor(array):
    return torch.tensor(array, dtype=torch.float64, requires_grad=True)


def norm(x, eps=1e-10):
    return functional.normalize(x, dim=1, eps=eps)


def distance(x, y, kind="SQUARED_L2", p=2.0, eps=1e-6):
    if kind == "COSINE":
        return 1 - functional.cosine_similarity(x, y, dim=-1)
    if kind == "LP":
        return functional.pairwise_distance(x, y, p=p, eps=eps)
    square = (x - y).square().sum(-1)
    return square if kind == "SQUARED_L2" else square.sqrt()


def triplet_terms(options, a, p, n):
    """(loss, d_ap) of rows of anchors, positives and negatives."""
    kind = (options.distance, options.p, options.eps)
    d_ap, d_an = distance(a, p, *kind), distance(a, n, *kind)
    if options.swap:
        d_an = torch.minimum(d_an, distance(p, n, *kind))
    if options.losstype == "HINGE":
        return functional.relu(d_ap - d_an + options.margin), d_ap
    if options.losstype == "RATIO":
        return functional.relu(1 - d_an / (d_ap + options.margin)), d_ap
    return functional.softplus(d_ap - d_an, threshold=700), d_ap


def rank_hard(x, pair_size, neg_num, margin, taken):
    terms = []
    for i in range(0, len(x), pair_size):
        positive = -(x[i] @ x[i + 1])
        for j in taken[i]:
            terms += [functional.relu(positive + x[k] @ x[j] + margin) for k in (i, i + 1)]
    return sum(terms, torch.zeros(())) / (neg_num * (len(x) // pair_size) * 2)


def margin_logits(options, x, weights, labels):
    r = x.norm(dim=1, keepdim=True)
    cosine = functional.normalize(x) @ functional.normalize(weights).T
    rows = torch.arange(len(x))
    c = cosine[rows, labels]
    theta = torch.acos(c)
    if options.plain:
        own = c
    elif options.angular_margin or options.cosine_margin:
        m = options.angular_margin
        own = torch.where(theta + m > math.pi, c - m * math.sin(m), torch.cos(theta + m))
        own = own - options.cosine_margin
    else:
        k = torch.floor(options.m * theta.detach() / math.pi)
        psi = (-1) ** k * torch.cos(options.m * theta) - 2 * k
        own = (options.lam * c + psi) / (1 + options.lam)
    logits = cosine.clone()
    logits[rows, labels] = own
    return options.scale * (logits if options.normalize_features else r * logits)
