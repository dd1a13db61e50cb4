"""Maps of embeddings on the plane, by t-SNE (van der Maaten and Hinton 2008)."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os

import numpy as np

from caffe_metric.evaluation.metrics.similarity import unit_rows

A_CLASS = 150  # so many images of each class are drawn


def chosen_rows(labels, count=A_CLASS):
    """The first `count` rows of each class."""
    return np.concatenate([np.flatnonzero(labels == label)[:count] for label in np.unique(labels)])


def make_maps(embeddings):
    """{name: positions [N, 2]} of {name: embeddings [N, D]}, two at a time."""
    context = multiprocessing.get_context("forkserver")
    with concurrent.futures.ProcessPoolExecutor(2, context) as pool:
        return dict(zip(embeddings, pool.map(place, embeddings.values())))


def place(embeddings):
    """Positions [N, 2] that keep neighbours by cosine similarity together."""
    # joblib counts physical cores on import, and warns where a container shows it none.
    os.environ.setdefault("LOKY_MAX_CPU_COUNT", "1")
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    # On the unit sphere the Euclidean distance orders pairs as the cosine does.
    perplexity = min(30, (len(embeddings) - 1) / 3)
    with threadpool_limits(1):
        return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(
            unit_rows(embeddings)
        )
