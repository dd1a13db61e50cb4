"""Clustering: do the embeddings fall apart into the identities?"""

from __future__ import annotations

import warnings

import numpy as np

MOST = 20_000_000_000  # rows times clusters: k-means of more takes hours


def nmi(unit, labels, seed=0):
    """Normalised mutual information of k-means (k = number of labels) of unit rows with the labels.

    Mutual information over the mean of both entropies (Manning, Raghavan and Schuetze 2008,
    eq. 183): 0 to 1. None where k-means would take too long.
    """
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import normalized_mutual_info_score

    labels = np.asarray(labels)
    clusters = len(np.unique(labels))
    if len(labels) * clusters > MOST:
        return None
    kind = KMeans if len(labels) * clusters <= 5_000_000 else MiniBatchKMeans
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than labels
        found = kind(clusters, n_init=3, random_state=seed).fit_predict(unit)
    return float(normalized_mutual_info_score(labels, found))
