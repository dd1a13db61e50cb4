"""`caffe-metric eval`: verification, retrieval and clustering of embeddings, with plots.

F.npz holds embeddings [N, D] and labels [N], and for --pairs names [N]. Similarity is the cosine.
Without --pairs, verification is over all pairs of rows. PAIRS.txt is in the format of Labeled
Faces in the Wild (`10 300`, then `NAME 1 4` or `NAME 1 OTHER 2`), or has lines `FILE FILE 0|1`.
"""

from __future__ import annotations

import json
from pathlib import Path

from caffe_metric.evaluation.report import (
    HISTOGRAM_BINS,
    load,
    measure,
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
    try:
        if args.pairs:
            found = verify_pairs(embeddings, names, args.pairs)
        else:
            found = verify_all_pairs(embeddings, labels)
    except ValueError as error:
        raise UserError(f"{args.pairs or args.file}: {error}") from error
    verified, roc, histograms = found
    numbers = measure(embeddings, labels, verified)
    out = Path(args.out)
    with replacing(out / "metrics.json") as path:
        path.write_text(json.dumps(numbers, indent=2) + "\n")
    with replacing(out / "roc.png") as path:
        roc_figure({"": roc}).savefig(path, dpi=150)
    with replacing(out / "histogram.png") as path:
        histogram_figure({"": histograms}, HISTOGRAM_BINS).savefig(path, dpi=150)
    print(numbers)
    return 0
