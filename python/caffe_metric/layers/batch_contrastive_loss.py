"""BatchContrastiveLoss: pairs of a class pulled together, others pushed apart, to margins."""

from __future__ import annotations

from caffe_metric.layers.batch_pairs import BatchPairsLayer


class BatchContrastiveLossLayer(BatchPairsLayer):
    """Pulls pairs of one class together and pushes others apart, each to a margin.

    bottom 0  features, N x D
    bottom 1  labels, N
    top 0     the loss
    top 1     optional: fraction of anchors with a loss > 0
    top 2, 3  optional: mean distance d of the pairs of one class, and of the others

    1/2 mean over same pairs of max(0, d - positive_margin)^2 + 1/2 mean over the other pairs with
    d < negative_margin of (negative_margin - d)^2, d the L2 distance of the rows scaled to length 1
    (Hadsell et al. 2006, over all pairs of the batch).

    Parameters: BatchContrastiveLossParameter.
    """

    MESSAGE = "BatchContrastiveLossParameter"

    def configure(self, bottom, top):
        super().configure(bottom, top)
        margin = self.parameters.positive_margin
        if not margin >= 0:
            raise ValueError(f"positive_margin is {margin:g}, must be >= 0")
