"""SupConLoss: a softmax of each row over all others, its class the target."""

from __future__ import annotations

from caffe_metric.layers.batch_pairs import BatchPairsLayer


class SupConLossLayer(BatchPairsLayer):
    """A softmax of each row over all the others, those of its class the target.

    bottom 0  features, N x D
    bottom 1  labels, N
    top 0     the loss
    top 1     optional: fraction of anchors with a loss > 0
    top 2, 3  optional: mean cosine similarity s of the pairs of one class, and of the others

    The mean over the anchors with a loss > 0 of -1/|P| sum_P (s/t - ln sum_(P and N) e^(s/t)), t
    the temperature (Khosla et al. 2020, equation 2).

    Parameters: SupConLossParameter.
    """

    MESSAGE = "SupConLossParameter"
