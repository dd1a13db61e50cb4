"""LiftedStructureLoss: each same pair against all the others of both of its rows."""

from __future__ import annotations

from caffe_metric.layers.batch_pairs import BatchPairsLayer


class LiftedStructureLossLayer(BatchPairsLayer):
    """Holds each pair of one class against all other rows.

    bottom 0  features, N x D
    bottom 1  labels, N
    top 0     the loss
    top 1     optional: fraction of anchors with a loss > 0
    top 2, 3  optional: mean distance d of the pairs of one class, and of the others

    SONG         1/(2 |P|) sum over the same pairs i < j of max(0, J)^2, J = ln(sum over N_i of
                 e^(m - d_ik) + sum over N_j of e^(m - d_jk)) + d_ij (Song et al. 2016, equation 4)
    GENERALIZED  the mean over the N anchors of max(0, ln sum_P e^d + ln sum_N e^(m - d))
                 (Hermans et al. 2017, section 2)

    m is the margin, d the L2 distance of the rows, scaled to length 1 with `normalize`.

    Parameters: LiftedStructureLossParameter.
    """

    MESSAGE = "LiftedStructureLossParameter"
