"""Verification, retrieval and clustering of embeddings, as numbers."""

from __future__ import annotations

import numpy as np

from caffe_metric.evaluation.metrics import retrieval, verification
from caffe_metric.evaluation.metrics.pairs import pair_scores, read_pairs
from caffe_metric.evaluation.metrics.similarity import pair_similarities
from caffe_metric.support.errors import UserError

FARS = (1e-1, 1e-2, 1e-3, 1e-4)
RECALLS = (1, 2, 4, 8, 16)
HISTOGRAM_BINS = np.linspace(-1, 1, 201)


def load(path):
    """The arrays of an .npz file: (embeddings, labels, names or None). Raises UserError."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}") from error
    for name in ("embeddings", "labels"):
        if name not in arrays:
            raise UserError(f"{path}: has no array '{name}'")
    embeddings, labels, names = arrays["embeddings"], arrays["labels"], arrays.get("names")
    if embeddings.ndim != 2 or labels.shape != (len(embeddings),):
        raise UserError(f"{path}: embeddings {embeddings.shape} and labels {labels.shape}")
    if not len(labels):
        raise UserError(f"{path}: empty")
    return embeddings, labels, names


def verify(roc):
    """Numbers of a Roc, as a dict for JSON."""
    return {
        "auc": roc.auc(),
        "eer": roc.eer(),
        "tar_at_far": {f"{far:g}": roc.tar_at(far) for far in FARS},
    }


def verify_all_pairs(embeddings, labels):
    """(numbers, Roc, histograms) of all pairs of rows; histograms: counts of [same, different]."""
    histograms = np.zeros((2, len(HISTOGRAM_BINS) - 1), np.int64)
    for scores, same in pair_similarities(embeddings, labels):
        scores = np.clip(scores, -1, 1)
        histograms[0] += np.histogram(scores[same], HISTOGRAM_BINS)[0]
        histograms[1] += np.histogram(scores[~same], HISTOGRAM_BINS)[0]
    roc = verification.roc_of_all_pairs(embeddings, labels)
    return {"pairs": int(histograms.sum()), **verify(roc)}, roc, histograms


def verify_pairs(embeddings, names, path):
    """The same for the pairs of a file, with the accuracy in its folds."""
    if names is None:
        raise UserError("--pairs needs the array 'names' in the .npz file")
    left, right, same, fold = read_pairs(path, names)
    scores = pair_scores(embeddings, left, right)
    roc = verification.roc(scores, same)
    accuracies = verification.fold_accuracies(scores, same, fold)
    numbers = {
        "pairs": len(same),
        **verify(roc),
        "accuracy": float(accuracies.mean()),
        "accuracy_standard_error": float(accuracies.std(ddof=1) / np.sqrt(len(accuracies))),
        "folds": accuracies.tolist(),
    }
    scores = np.clip(scores, -1, 1)
    histograms = [np.histogram(scores[kind], HISTOGRAM_BINS)[0] for kind in (same, ~same)]
    return numbers, roc, np.array(histograms)


def retrieve(embeddings, labels):
    """Recall at k, MAP@R and R-precision, as a dict for JSON; {} where no row has a partner."""
    try:
        recalls = retrieval.recall_at(embeddings, labels, RECALLS)
    except ValueError:
        return {}
    map_at_r, r_precision = retrieval.map_at_r(embeddings, labels)
    return {
        "recall_at": {str(k): recall for k, recall in recalls.items()},
        "map_at_r": map_at_r,
        "r_precision": r_precision,
    }
