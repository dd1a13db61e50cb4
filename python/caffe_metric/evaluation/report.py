"""Verification, retrieval and clustering of embeddings, as numbers that show themselves."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from caffe_metric.evaluation.metrics import clustering, retrieval, verification
from caffe_metric.evaluation.metrics.all_pairs import HISTOGRAM_BINS, Pairs, all_pairs, listed_pairs
from caffe_metric.evaluation.metrics.pairs import pair_scores, read_pairs
from caffe_metric.evaluation.metrics.similarity import unit_rows
from caffe_metric.support import tables
from caffe_metric.support.errors import UserError

__all__ = ["HISTOGRAM_BINS", "Measured", "Report", "evaluate", "measure", "verify_all_pairs"]

FARS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
RECALLS = (1, 2, 4, 8, 16)


class Report(dict):
    """The numbers of an evaluation, as in metrics.json: a dict that shows itself as a table."""

    def __repr__(self) -> str:
        return tables.text(self.rows(), gap=1)

    def _repr_html_(self) -> str:
        return tables.as_html(self.rows())

    def rows(self) -> list[tuple[str, str]]:
        """A name and a number a line."""
        verified, retrieved = self["verification"], self["retrieval"]
        rows = [("rows", f"{self['rows']}"), ("identities", f"{self['identities']}")]
        rows.append(("same pairs", f"{verified['same_pairs']}"))
        of = verified["different_pairs"]
        drawn = verified["measured_different_pairs"]
        rows.append(("different pairs", f"{of}" if drawn == of else f"{drawn} of {of}, at random"))
        if "accuracy" in verified:
            error = verified["accuracy_standard_error"]
            rows.append(("accuracy", f"{verified['accuracy']:.4f} +- {error:.4f}"))
            rows.append(("its threshold", f"{verified['accuracy_threshold']:.4f}"))
        rows.append(("AUC", f"{verified['auc']:.4f}"))
        rows.append(("EER", f"{verified['eer']:.4f}"))
        rows.append(("its threshold", _threshold(verified["eer_threshold"])))
        for far, tar in verified["tar_at_far"].items():
            rows.append((f"TAR at FAR {far}", f"{tar:.4f}"))
            rows.append(("its threshold", _threshold(verified["threshold_at_far"][far])))
        rows.append(("Fisher score", f"{verified['fisher']:.4f}"))
        if retrieved:
            asked, could = retrieved["queries"], retrieved["of_queries"]
            text = f"{could}" if asked == could else f"{asked} of {could}, at random"
            rows.append(("queries", text))
        for k, recall in retrieved.get("recall_at", {}).items():
            rows.append((f"recall at {k}", f"{recall:.4f}"))
        if retrieved:
            rows.append(("MAP@R", f"{retrieved['map_at_r']:.4f}"))
            rows.append(("R-precision", f"{retrieved['r_precision']:.4f}"))
        if "nmi" in self["clustering"]:
            rows.append(("NMI", f"{self['clustering']['nmi']:.4f}"))
        return rows


def _threshold(value) -> str:
    return "none" if value is None else f"{value:.4f}"


@dataclasses.dataclass
class Measured:
    """A report, and the pairs it speaks of."""

    report: Report
    pairs: Pairs


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
    return measure(unit_rows(embeddings), labels).report


def measure(unit, labels, names=None, pairs_file=None, hardest=0) -> Measured:
    """Measures unit rows [N, D]. Memory beyond them is bounded, whatever N is.

    names, pairs_file: verification over the pairs of a file, by the images' names, and not over all
    pairs. hardest: how many pairs of each kind to name. Raises ValueError, UserError.
    """
    if pairs_file is None:
        found, more = all_pairs(unit, labels, hardest=hardest), {}
    else:
        found, more = _pairs_of_file(unit, names, pairs_file, hardest)
    report = Report(rows=len(labels), identities=len(np.unique(labels)))
    report["verification"] = {**_verified(found), **more}
    report["retrieval"] = _retrieved(unit, labels)
    report["clustering"] = _clustered(unit, labels)
    return Measured(report, found)


def verify_all_pairs(embeddings, labels):
    """(numbers, Roc, histograms) of all pairs of rows; histograms: counts of [same, different]."""
    found = all_pairs(unit_rows(embeddings), labels)
    return _verified(found), found.roc, found.histograms


def _verified(found: Pairs) -> dict:
    """Numbers for JSON. A FAR below one pair in the different ones says nothing: it is left out."""
    same, different = found.counts
    roc = found.roc
    fars = [far for far in FARS if far * different > 1 - 1e-9]
    return {
        "pairs": same + found.of_different,
        "same_pairs": same,
        "different_pairs": found.of_different,
        "measured_different_pairs": different,
        "auc": roc.auc(),
        "eer": roc.eer(),
        "eer_threshold": _finite(roc.eer_threshold()),
        "tar_at_far": {f"{far:g}": roc.tar_at(far) for far in fars},
        "threshold_at_far": {f"{far:g}": _finite(roc.threshold_at(far)) for far in fars},
        "fisher": found.fisher(),
    }


def _finite(threshold: float):
    """None where no threshold keeps to the FAR, because that many pairs share the highest score."""
    return threshold if math.isfinite(threshold) else None


def _pairs_of_file(unit, names, path, hardest):
    """Pairs, and the accuracy in their folds."""
    if names is None:
        raise UserError("--pairs needs the array 'names' in the .npz file")
    left, right, same, fold = read_pairs(path, names)
    scores = pair_scores(unit, left, right)
    found = listed_pairs(scores, same)
    for name, kind, keys in (("same", same, scores), ("different", ~same, -scores)):
        worst = np.flatnonzero(kind)[np.argsort(keys[kind], kind="stable")[:hardest]]
        found.hardest[name] = [(int(left[i]), int(right[i]), float(scores[i])) for i in worst]
    accuracies = verification.fold_accuracies(scores, same, fold)
    return found, {
        "accuracy": float(accuracies.mean()),
        "accuracy_standard_error": float(accuracies.std(ddof=1) / np.sqrt(len(accuracies))),
        "accuracy_threshold": verification.best_threshold(scores, same),
        "folds": accuracies.tolist(),
    }


def _retrieved(unit, labels) -> dict:
    """For JSON; {} where no row has a partner."""
    try:
        found = retrieval.retrieve(unit, labels, RECALLS)
    except ValueError:
        return {}
    found["recall_at"] = {str(k): recall for k, recall in found["recall_at"].items()}
    return found


def _clustered(unit, labels) -> dict:
    """{} without scikit-learn, and where k-means would take too long."""
    try:
        found = clustering.nmi(unit, labels)
    except ModuleNotFoundError:
        return {}
    return {} if found is None else {"nmi": found}
