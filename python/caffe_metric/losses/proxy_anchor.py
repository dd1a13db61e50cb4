"""ProxyAnchorLoss: a proxy for each class, which meets the rows of the batch.

With s the cosine similarity of a row and a proxy, C the classes and C+ those in the batch,

    1/|C+| sum over C+ of ln(1 + sum over i of c of e^-alpha(s_ic - margin))
    + 1/|C| sum over C of ln(1 + sum over i not of c of e^alpha(s_ic + margin))

Kim et al. 2020, equation 4.
"""

from __future__ import annotations

import numpy as np

from caffe_metric.losses.batch_pairs import PairSums
from caffe_metric.rules.reference.batch_rules import log_sum, sigmoid, soft_plus
from caffe_metric.rules.reference.distance import divide, row_norms
from caffe_metric.rules.reference.strips import STRIP


def proxy_anchor(parameters, x, labels, proxies):
    """The sums over the proxies, and a function that gives the gradients of rows and proxies.

    x  N x D features, C-contiguous; labels: N integers; proxies: C x D
    """
    number = x.dtype.type
    alpha, margin = number(parameters.alpha), number(parameters.margin)
    norms, lengths = row_norms(x)[:, None], row_norms(proxies)[:, None]
    u, w = divide(x, norms), divide(proxies, lengths)
    classes = len(proxies)
    present = max(1, len(np.unique(labels)))
    du, dw = np.zeros_like(u), np.zeros_like(w)
    sums = PairSums(anchors=classes)
    step = max(1, STRIP // max(1, len(x)))
    for start in range(0, classes, step):
        part = slice(start, start + step)
        s = w[part] @ u.T
        same = np.arange(classes)[part, None] == labels
        pull, pulled = log_sum(-alpha * (s - margin), same)
        push, pushed = log_sum(alpha * (s + margin), ~same)
        losses = soft_plus(pull) / present + soft_plus(push) / classes
        slopes = pushed * (sigmoid(push) / classes)[:, None]
        slopes -= pulled * (sigmoid(pull) / present)[:, None]
        slopes = (alpha * slopes).astype(x.dtype)
        du += slopes.T @ w[part]
        dw[part] = slopes @ u
        sums.loss += float(losses.sum(dtype=np.float64))
        sums.active += int(np.count_nonzero(losses > 0))
        sums.same += int(same.sum())
        sums.same_v += float(np.sum(s, where=same, dtype=np.float64))
        sums.other += int(same.size - same.sum())
        sums.other_v += float(np.sum(s, where=~same, dtype=np.float64))
    if not (sums.same and sums.other):  # as of a batch without both kinds of pairs
        sums.loss, sums.active = 0.0, 0
        return sums, lambda: (np.zeros_like(x), np.zeros_like(proxies))
    return sums, lambda: (_of_rows(du, u, norms), _of_rows(dw, w, lengths))


def _of_rows(gradient, unit, norms):
    """The gradient by rows, of that by the rows scaled to length 1."""
    gradient = gradient - np.einsum("nd,nd->n", gradient, unit)[:, None] * unit
    return divide(gradient, norms)
