"""`caffe-metric convert`: images by folder, list or IDX file to an LMDB for Caffe's Data layer.

The order decides what a batch holds. `pairs` puts images of one identity side by side, for
RankHardLoss; `pk` makes batches of P identities with K images each, for mined triplets. Several
epochs are written one after another, each shuffled anew, since a Data layer only reads on and on.
"""

from __future__ import annotations

import numpy as np

from caffe_metric.data.conversion import convert, keep_classes
from caffe_metric.data.order import ORDERS
from caffe_metric.data.picture import Picture
from caffe_metric.data.sources import open_source
from caffe_metric.support.arguments import natural, naturals, positive, size_argument
from caffe_metric.support.errors import UserError


def add_arguments(parser):
    parser.add_argument(
        "source",
        help="a folder with a folder for each class; a list with `FILE LABEL` lines, paths "
        "relative to it; or an IDX image file, also gzipped",
    )
    parser.add_argument("out", metavar="OUT.lmdb")
    parser.add_argument("--labels", metavar="FILE", help="labels of an IDX image file")
    parser.add_argument("--order", choices=sorted(ORDERS), default="source")
    parser.add_argument(
        "--identities", type=positive, metavar="P", help="identities a batch (pk; default 8)"
    )
    parser.add_argument(
        "--images",
        type=positive,
        metavar="K",
        help="images of an identity side by side (pk; default 4) or in a group (pairs; default 2)",
    )
    parser.add_argument(
        "--epochs", type=positive, default=1, help="how often to write all, shuffled anew"
    )
    parser.add_argument("--exclude-classes", type=naturals, default=[], metavar="2,5,8")
    parser.add_argument("--include-classes", type=naturals, default=[], metavar="2,5,8")
    parser.add_argument("--relabel", action="store_true", help="number the classes 0 ... C-1")
    parser.add_argument("--limit", type=positive, metavar="N", help="the first N of each class")
    parser.add_argument("--size", type=size_argument, metavar="WxH", help="resize the images")
    parser.add_argument("--gray", action="store_true", help="one channel")
    parser.add_argument(
        "--encoded", action="store_true", help="keep the files' bytes; the Data layer decodes them"
    )
    parser.add_argument("--seed", type=natural, default=0)
    parser.add_argument("--force", action="store_true", help="replace OUT.lmdb")


def run(args):
    if args.identities and args.order != "pk":
        raise UserError("--identities is for --order pk")
    if args.images and args.order not in ("pk", "pairs"):
        raise UserError("--images is for --order pk and --order pairs")
    source = open_source(args.source, args.labels, Picture(args.size, args.gray, args.encoded))
    source = keep_classes(
        source, args.exclude_classes, args.include_classes, args.relabel, args.limit
    )
    count = convert(
        source,
        args.out,
        args.order,
        args.epochs,
        args.identities,
        args.images,
        args.seed,
        args.force,
    )
    classes = len(np.unique(source.labels))
    print(f"{args.out}: {count} records of {len(source.labels)} images in {classes} classes")
    return 0
