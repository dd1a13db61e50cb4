"""`caffe-metric convert`: images by folder, list or IDX file to an LMDB for Caffe's Data layer.

The order decides what a batch holds; without --order the images stay in the order of the source.
`pairs` puts images of one identity side by side, for RankHardLoss; `pk` makes batches of P
identities with K images each, for mined triplets. An epoch is all images once (`pairs`: with some
twice, to fill groups; `pk`: as many whole batches as they fill); a Data layer only reads on and on,
so several epochs are written one after another, each shuffled anew.

Pictures are read in colour, as Caffe reads them: three channels, also of a gray one (--gray: one
channel, of all), turned as EXIF says, the upper 8 of 16 bits. A picture that cannot be read is
named, another of its identity takes its place in a group, the rest goes on, and the exit status is
1; --strict stops there. A conversion that was killed goes on when it is called again.

OUT.lmdb also gets labels.txt (`label name`), summary.json, and left_out.txt where there is need.
"""

from __future__ import annotations

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
    parser.add_argument("--root", metavar="DIR", help="what a list's files are relative to")
    parser.add_argument("--labels", metavar="FILE", help="labels of an IDX image file")
    parser.add_argument("--order", choices=sorted(ORDERS), default="source", help="default: source")
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
        "--epochs",
        type=positive,
        default=1,
        help="how often to write all images, shuffled anew (default 1)",
    )
    parser.add_argument("--exclude-classes", type=naturals, default=[], metavar="2,5,8")
    parser.add_argument("--include-classes", type=naturals, default=[], metavar="2,5,8")
    parser.add_argument("--relabel", action="store_true", help="number the classes 0 ... C-1")
    parser.add_argument("--limit", type=positive, metavar="N", help="the first N of each class")
    parser.add_argument("--size", type=size_argument, metavar="WxH", help="resize the images")
    parser.add_argument("--gray", action="store_true", help="one channel; else three")
    parser.add_argument(
        "--encoded", action="store_true", help="keep the files' bytes; the Data layer decodes them"
    )
    parser.add_argument("--seed", type=natural, default=0)
    parser.add_argument(
        "--strict", action="store_true", help="stop at an image that cannot be read"
    )
    parser.add_argument("--force", action="store_true", help="replace OUT.lmdb")


def run(args):
    if args.identities and args.order != "pk":
        raise UserError("--identities is for --order pk")
    if args.images and args.order not in ("pk", "pairs"):
        raise UserError("--images is for --order pk and --order pairs")
    picture = Picture(args.size, args.gray, args.encoded)
    source = open_source(args.source, args.labels, picture, args.root)
    source = keep_classes(
        source, args.exclude_classes, args.include_classes, args.relabel, args.limit
    )
    summary = convert(
        source,
        args.out,
        args.order,
        args.epochs,
        args.identities,
        args.images,
        args.seed,
        args.force,
        strict=args.strict,
    )
    _print(args.out, summary)
    if summary.left_out:
        name, why = summary.left_out[0]
        raise UserError(
            f"{len(summary.left_out)} of {summary.images} images could not be read, and were left "
            f"out ({name}: {why}): see {args.out}/left_out.txt"
        )
    return 0


def _print(out, summary):
    print(
        f"{out}: {summary.records} records of {summary.images} images in {summary.people} classes"
    )
    print(f"  size      {summary.width}x{summary.height}, {summary.channels} channel(s)")
    batch = f", in batches of {summary.batch}" if summary.order == "pk" else ""
    group = f", {summary.group} of a person side by side" if summary.group > 1 else ""
    print(f"  order     {summary.order}{group}{batch}; {summary.epochs} epoch(s)")
    if summary.resumed:
        print(f"  resumed   after {summary.resumed * summary.group} images of a call before")
    if summary.left_out:
        print(f"  left out  {len(summary.left_out)} image(s) that could not be read")
    if summary.few:
        shown = ", ".join(summary.few[:10]) + (" ..." if len(summary.few) > 10 else "")
        print(f"  left out  {len(summary.few)} people with fewer images than a group: {shown}")
