"""`caffe-metric eval`: verification, retrieval and clustering of embeddings, with plots.

F.npz holds embeddings [N, D] and labels [N], and for --pairs names [N]. Similarity is the cosine.
Without --pairs, verification is over all pairs of rows. PAIRS.txt is in the format of Labeled
Faces in the Wild (`10 300`, then `NAME 1 4` or `NAME 1 OTHER 2`), or has lines `FILE FILE 0|1`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from caffe_metric.evaluation.metrics import clustering
from caffe_metric.evaluation.report import (
    HISTOGRAM_BINS,
    load,
    retrieve,
    verify_all_pairs,
    verify_pairs,
)
from caffe_metric.support.errors import UserError
from caffe_metric.support.files import replacing


def add_arguments(parser):
    parser.add_argument("file", metavar="F.npz")
    parser.add_argument("--pairs", metavar="PAIRS.txt")
    parser.add_argument("-o", dest="out", required=True, metavar="DIR")


def run(args):
    from caffe_metric.evaluation.figures import histogram_figure, roc_figure

    embeddings, labels, names = load(args.file)
    numbers = {"rows": len(labels), "identities": len(np.unique(labels))}
    try:
        if args.pairs:
            found = verify_pairs(embeddings, names, args.pairs)
        else:
            found = verify_all_pairs(embeddings, labels)
    except ValueError as error:
        raise UserError(f"{args.pairs or args.file}: {error}") from error
    numbers["verification"], roc, histograms = found
    numbers["retrieval"] = retrieve(embeddings, labels)
    numbers["clustering"] = {"nmi": clustering.nmi(embeddings, labels)}
    out = Path(args.out)
    with replacing(out / "metrics.json") as path:
        path.write_text(json.dumps(numbers, indent=2) + "\n")
    with replacing(out / "roc.png") as path:
        roc_figure({"": roc}).savefig(path, dpi=150)
    with replacing(out / "histogram.png") as path:
        histogram_figure({"": histograms}, HISTOGRAM_BINS).savefig(path, dpi=150)
    print(_table(numbers))
    return 0


def _table(numbers):
    verified, retrieved = numbers["verification"], numbers["retrieval"]
    lines = [("rows", numbers["rows"]), ("identities", numbers["identities"])]
    lines += [("pairs", verified["pairs"])]
    if "accuracy" in verified:
        error = verified["accuracy_standard_error"]
        lines += [("accuracy", f"{verified['accuracy']:.4f} +- {error:.4f}")]
    lines += [("AUC", f"{verified['auc']:.4f}"), ("EER", f"{verified['eer']:.4f}")]
    lines += [(f"TAR at FAR {far}", f"{tar:.4f}") for far, tar in verified["tar_at_far"].items()]
    for k, recall in retrieved.get("recall_at", {}).items():
        lines.append((f"recall at {k}", f"{recall:.4f}"))
    if retrieved:
        lines.append(("MAP@R", f"{retrieved['map_at_r']:.4f}"))
        lines.append(("R-precision", f"{retrieved['r_precision']:.4f}"))
    lines.append(("NMI", f"{numbers['clustering']['nmi']:.4f}"))
    return "\n".join(f"{name:<18}{value}" for name, value in lines)
