"""MultiSimilarityLoss: soft sums over the pairs that tell most."""

from __future__ import annotations

from caffe_metric.layers.batch_pairs import BatchPairsLayer


class MultiSimilarityLossLayer(BatchPairsLayer):
    """Pulls and pushes by soft sums over the pairs that tell most.

    bottom 0  features, N x D
    bottom 1  labels, N
    top 0     the loss
    top 1     optional: fraction of anchors with a loss > 0
    top 2, 3  optional: mean cosine similarity s of the pairs of one class, and of the others

    The mean over the N anchors of 1/alpha ln(1 + sum_P e^-alpha(s - base)) + 1/beta ln(1 + sum_N
    e^beta(s - base)) over the pairs that are kept: same pairs with s - epsilon < max_N s, others
    with s + epsilon > min_P s; all for epsilon < 0 (Wang et al. 2019, equations 7 to 9 and 14).

    Parameters: MultiSimilarityLossParameter.
    """

    MESSAGE = "MultiSimilarityLossParameter"
