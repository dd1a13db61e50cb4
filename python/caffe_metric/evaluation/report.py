"""Verification, retrieval and clustering of embeddings, as numbers."""

from __future__ import annotations

import contextlib

import numpy as np

from caffe_metric.evaluation.metrics import clustering, retrieval, verification
from caffe_metric.evaluation.metrics.pairs import pair_scores, read_pairs
from caffe_metric.evaluation.metrics.similarity import pair_similarities
from caffe_metric.support import tables
from caffe_metric.support.arrays import read_npz
from caffe_metric.support.errors import UserError

FARS = (1e-1, 1e-2, 1e-3, 1e-4)
RECALLS = (1, 2, 4, 8, 16)
HISTOGRAM_BINS = np.linspace(-1, 1, 201)


class Report(dict):
    """The numbers of an evaluation, as in metrics.json: a dict that shows itself as a table."""

    def __repr__(self) -> str:
        return "\n".join(f"{name:<18}{value}" for name, value in self.rows())

    def _repr_html_(self) -> str:
        return tables.as_html(self.rows())

    def rows(self) -> list[tuple[str, str]]:
        """A name and a number a line."""
        verified, retrieved = self["verification"], self["retrieval"]
        rows = [("rows", str(self["rows"])), ("identities", str(self["identities"]))]
        rows += [("pairs", str(verified["pairs"]))]
        if "accuracy" in verified:
            error = verified["accuracy_standard_error"]
            rows += [("accuracy", f"{verified['accuracy']:.4f} +- {error:.4f}")]
        rows += [("AUC", f"{verified['auc']:.4f}"), ("EER", f"{verified['eer']:.4f}")]
        rows += [(f"TAR at FAR {far}", f"{tar:.4f}") for far, tar in verified["tar_at_far"].items()]
        for k, recall in retrieved.get("recall_at", {}).items():
            rows.append((f"recall at {k}", f"{recall:.4f}"))
        if retrieved:
            rows.append(("MAP@R", f"{retrieved['map_at_r']:.4f}"))
            rows.append(("R-precision", f"{retrieved['r_precision']:.4f}"))
        if "nmi" in self["clustering"]:
            rows.append(("NMI", f"{self['clustering']['nmi']:.4f}"))
        return rows


def evaluate(embeddings, labels) -> Report:
    """How well rows of one label stand apart from the others, by cosine similarity.

    embeddings  N x D, finite
    labels      N, of any kind that can be compared: integers, strings

    Verification over all pairs of rows, retrieval (each row asks the others), and, where
    scikit-learn is installed, clustering. Raises ValueError for other shapes, for numbers that are
    not finite, and where there is no pair of one label, or none of two.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or np.shape(embeddings)[:1] != labels.shape:
        raise ValueError(f"embeddings {np.shape(embeddings)} and labels {labels.shape}")
    return measure(embeddings, labels, *verify_all_pairs(embeddings, labels)[:1])


def measure(embeddings, labels, verified) -> Report:
    """The report of embeddings whose verification has been measured."""
    numbers = Report(rows=len(labels), identities=len(np.unique(labels)), verification=verified)
    numbers["retrieval"] = retrieve(embeddings, labels)
    numbers["clustering"] = {}
    with contextlib.suppress(ModuleNotFoundError):  # scikit-learn
        numbers["clustering"]["nmi"] = clustering.nmi(embeddings, labels)
    return numbers


def load(path):
    """(embeddings [N, D], labels int64 [N], names [N] or None) of a file. Raises UserError."""
    arrays = read_npz(path)
    for name in ("embeddings", "labels"):
        if name not in arrays:
            raise UserError(f"{path}: has no array '{name}'")
    embeddings, labels, names = arrays["embeddings"], arrays["labels"], arrays.get("names")
    if embeddings.ndim != 2 or labels.shape != (len(embeddings),):
        raise UserError(f"{path}: embeddings {embeddings.shape} and labels {labels.shape}")
    if not embeddings.size:
        raise UserError(f"{path}: empty")
    if names is not None and names.shape != labels.shape:
        raise UserError(f"{path}: {len(labels)} labels and names of shape {names.shape}")
    return _real(path, embeddings), _numbered(path, labels), names


def _real(path, embeddings):
    if embeddings.dtype.kind not in "fiu":
        raise UserError(f"{path}: embeddings are {embeddings.dtype}, must be numbers")
    good = np.isfinite(embeddings).all(axis=1)
    if not good.all():
        raise UserError(f"{path}: row {np.argmin(good)} of the embeddings holds NaN or Inf")
    return embeddings if embeddings.dtype.kind == "f" else embeddings.astype(np.float32)


def _numbered(path, labels):
    """Labels as int64; names of classes are numbered in their order."""
    if labels.dtype.kind in "US":
        return np.unique(labels, return_inverse=True)[1]
    with np.errstate(invalid="ignore"):
        whole = labels.astype(np.int64) if labels.dtype.kind in "fiub" else None
    if whole is None or not (whole == labels).all():
        raise UserError(f"{path}: labels are {labels.dtype}, must be integers, or names of classes")
    return whole


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
