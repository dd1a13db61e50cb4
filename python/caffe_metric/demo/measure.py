"""What the demo measures of embeddings of the test images."""

from __future__ import annotations

import dataclasses

import numpy as np

from caffe_metric.evaluation.metrics.retrieval import retrieve
from caffe_metric.evaluation.metrics.similarity import unit_rows
from caffe_metric.evaluation.metrics.verification import Roc
from caffe_metric.evaluation.report import verify_all_pairs


@dataclasses.dataclass
class Measured:
    """The numbers of the table, and what the report draws."""

    recall_at_1: float
    map_at_r: float
    unseen_auc: float
    unseen_tar_at_far_1: float
    roc: Roc
    histograms: np.ndarray  # of same and different pairs, see evaluate.HISTOGRAM_BINS

    def summary(self):
        names = ("recall_at_1", "unseen_auc", "unseen_tar_at_far_1", "map_at_r")
        return {name: round(getattr(self, name), 4) for name in names}


def measure(embeddings, labels, unseen):
    """Measures embeddings [N, D] by cosine similarity.

    unseen: bool [N], the images of classes that were kept out of training. Recall at 1 and MAP@R
    are of the others among themselves, leave one out; AUC and TAR at FAR 1% are of verification
    over all pairs of the unseen.
    """
    seen = ~unseen
    _, roc, histograms = verify_all_pairs(embeddings[unseen], labels[unseen])
    retrieved = retrieve(unit_rows(embeddings[seen]), labels[seen], (1,))
    return Measured(
        retrieved["recall_at"][1],
        retrieved["map_at_r"],
        roc.auc(),
        roc.tar_at(0.01),
        roc,
        histograms,
    )
