"""`caffe-metric convert`: images by folder, list or IDX file to an LMDB for Caffe's Data layer.

The order decides what a batch holds. `pairs` puts images of one identity side by side, for
RankHardLoss; `pk` makes batches of P identities with K images each, for mined triplets. Several
epochs are written one after another, each shuffled anew, since a Data layer only reads on and on.
"""

import argparse

import numpy as np

from caffe_metric.dataset import datum
from caffe_metric.dataset.lmdb_file import write_lmdb
from caffe_metric.dataset.order import ORDERS
from caffe_metric.dataset.picture import Picture
from caffe_metric.dataset.sources import open_source
from caffe_metric.errors import UserError
from caffe_metric.progress import Progress


def convert(
    source,
    out,
    order="source",
    epochs=1,
    identities=None,
    images=None,
    seed=0,
    force=False,
    progress=None,
):
    """Writes a Source to an LMDB folder and returns the number of records.

    order: a name in dataset.order.ORDERS; identities (P) and images (K) are its numbers.
    The folder also gets labels.txt, a line `label name` for each class.
    """
    numbers = {}
    if identities is not None:
        numbers["identities"] = identities
    if images is not None:
        numbers["images"] = images
    rng = np.random.default_rng(seed)
    rows = np.concatenate(list(ORDERS[order](source.labels, rng, epochs=epochs, **numbers)))
    classes = "".join(
        f"{label} {source.class_names.get(label, label)}\n" for label in np.unique(source.labels)
    )
    records = _records(source, rows, progress or Progress(), str(out))
    return write_lmdb(out, records, force, {"labels.txt": classes})


def _records(source, rows, progress, text):
    shape = None
    with progress:
        for row in progress.each(rows, text):
            image = source.load(row)
            if not isinstance(image, bytes):
                shape = shape or image.shape
                if image.shape != shape:
                    raise UserError(
                        f"{source.names[row]}: {_size(image.shape)}, the first image is "
                        f"{_size(shape)}; --size makes them equal"
                    )
            yield source.names[row], datum.encode(image, int(source.labels[row]))


def _size(shape):
    return f"{shape[2]}x{shape[1]} with {shape[0]} channels"


def keep_classes(source, exclude=(), include=(), relabel=False, limit=None):
    """The Source without or with only some classes, perhaps with labels 0 ... C-1.

    limit: so many images of each class, the first ones. Raises UserError where nothing is left or
    a class to be taken out is not there.
    """
    present = set(source.labels.tolist())
    missing = sorted((set(exclude) | set(include)) - present)
    if missing:
        raise UserError(f"no image has label {', '.join(map(str, missing))}")
    wanted = np.ones(len(source.labels), bool)
    if include:
        wanted &= np.isin(source.labels, list(include))
    wanted &= ~np.isin(source.labels, list(exclude))
    rows = np.flatnonzero(wanted)
    if limit is not None and len(rows):
        kept = [rows[source.labels[rows] == label][:limit] for label in present]
        rows = np.sort(np.concatenate(kept))
    if not len(rows):
        raise UserError("no images are left")
    source = source.select(rows)
    return source.relabel() if relabel else source


def _label_list(text):
    return [int(word) for word in text.split(",") if word]


def size_argument(text):
    """An argparse type: WIDTHxHEIGHT."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"WIDTHxHEIGHT expected, not '{text}'")
    return int(width), int(height)


def positive(text):
    """An argparse type: an integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number of at least 1 expected, not '{text}'")
    return int(text)


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
    parser.add_argument("--exclude-classes", type=_label_list, default=[], metavar="2,5,8")
    parser.add_argument("--include-classes", type=_label_list, default=[], metavar="2,5,8")
    parser.add_argument("--relabel", action="store_true", help="number the classes 0 ... C-1")
    parser.add_argument("--limit", type=positive, metavar="N", help="the first N of each class")
    parser.add_argument("--size", type=size_argument, metavar="WxH", help="resize the images")
    parser.add_argument("--gray", action="store_true", help="one channel")
    parser.add_argument(
        "--encoded", action="store_true", help="keep the files' bytes; the Data layer decodes them"
    )
    parser.add_argument("--seed", type=int, default=0)
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
