"""CircleLoss: each similarity weighted by how far it is from its optimum."""

from __future__ import annotations

from caffe_metric.layers.batch_pairs import BatchPairsLayer


class CircleLossLayer(BatchPairsLayer):
    """Weights each similarity by how far it is from its optimum.

    bottom 0  features, N x D
    bottom 1  labels, N
    top 0     the loss
    top 1     optional: fraction of anchors with a loss > 0
    top 2, 3  optional: mean cosine similarity s of the pairs of one class, and of the others

    The mean over the anchors with a loss > 0 of ln(1 + sum_N e^(gamma [s + m]+ (s - m)) sum_P
    e^(-gamma [1 + m - s]+ (s - 1 + m))), m the margin. The factors [ ]+ are constants in backward,
    as in the paper (Sun et al. 2020, equations 6 to 10).

    Parameters: CircleLossParameter.
    """

    MESSAGE = "CircleLossParameter"
