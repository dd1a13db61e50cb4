"""`caffe-metric eval`: verification, retrieval and clustering of embeddings, with plots.

F.npz holds embeddings [N, D] and labels [N], and for --pairs names [N]. Similarity is the cosine.
Without --pairs, verification is over all pairs of rows. PAIRS.txt is in the format of Labeled
Faces in the Wild (`10 300`, then `NAME 1 4` or `NAME 1 OTHER 2`), or has lines `FILE FILE 0|1`.

Several files stand in one report, side by side. --classes keeps the rows of some labels, such as
those that no training has seen. --images are what the rows were made of: their raw pixels are
measured beside them, and the hardest pairs are shown. DIR gets metrics.json, roc.png,
histogram.png and, where jinja2 is installed, report.html.

Beyond the rows themselves memory is bounded, for a million of them as well: neighbours come from
FAISS, pairs are counted in tiles; above 10^9 pairs all same pairs are measured, and the different
ones of rows drawn at random; above 100,000 rows, 20,000 drawn at random ask for their neighbours.
"""

from __future__ import annotations

import dataclasses

from caffe_metric.evaluation.embeddings import open_embeddings, titles
from caffe_metric.evaluation.metrics.similarity import unit_rows
from caffe_metric.evaluation.page import compared, write_page
from caffe_metric.evaluation.pictures import Pictures
from caffe_metric.evaluation.report import measure
from caffe_metric.support import tables
from caffe_metric.support.arguments import natural, ranges
from caffe_metric.support.errors import UserError


def add_arguments(parser):
    parser.add_argument("files", metavar="F.npz", nargs="+")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--pairs", metavar="PAIRS.txt", help="verify these pairs")
    which.add_argument(
        "--classes", type=ranges, metavar="A,B-C", help="only rows with one of these labels"
    )
    parser.add_argument("--images", metavar="DATA", help="a folder, a list, an IDX file or an LMDB")
    parser.add_argument(
        "--hardest", type=natural, default=12, metavar="N", help="pairs of each kind to show (12)"
    )
    parser.add_argument("-o", dest="out", required=True, metavar="DIR")


def run(args):
    pictures = Pictures(args.images) if args.images else None
    measured, kept = {}, {}
    for one in _opened(args, pictures):
        try:
            unit = unit_rows(one.rows, reuse=True)
            found = measure(unit, one.labels, one.names, args.pairs, args.hardest)
        except ValueError as error:
            raise UserError(f"{args.pairs or one.title}: {error}") from error
        measured[one.title] = found
        kept[one.title] = dataclasses.replace(one, rows=None)
    write_page(args.out, measured, kept, pictures)
    if len(measured) == 1:
        print(next(iter(measured.values())).report)
    else:
        head = ("", *measured)
        print(tables.text([head, *[(name, *cells) for name, cells in compared(measured)]]))
    return 0


def _opened(args, pictures):
    """The raw pixels of the first file's images, where they are given, then the files."""
    for number, (path, title) in enumerate(zip(args.files, titles(args.files))):
        one = open_embeddings(path, title)
        if args.classes:
            one = one.of_classes(args.classes)
        if pictures and number == 0:
            yield pictures.pixels(one)
        yield one
