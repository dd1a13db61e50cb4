"""Clustering: do the embeddings fall apart into the identities?"""

from __future__ import annotations

import numpy as np

from caffe_metric.evaluation.metrics.similarity import unit_rows


def nmi(embeddings, labels, seed=0):
    """Normalised mutual information of k-means (k = number of labels) with the labels; 0 to 1.

    Clusters of the unit rows; mutual information over the mean of both entropies (Manning,
    Raghavan and Schuetze 2008, eq. 183).
    """
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.metrics import normalized_mutual_info_score

    labels = np.asarray(labels)
    clusters = len(np.unique(labels))
    kind = KMeans if len(labels) * clusters <= 5_000_000 else MiniBatchKMeans
    found = kind(clusters, n_init=3, random_state=seed).fit_predict(unit_rows(embeddings))
    return float(normalized_mutual_info_score(labels, found))
