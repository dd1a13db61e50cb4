"""`caffe-metric mine`: triplets for a whole data set, by its embeddings.

For each image (the anchor) a positive of its class at random, and negatives among the --neighbours
images of other classes that are nearest to it, however many images its own class has:

  semihard, facenet  at random, farther than the positive, but by less than --margin
  vgg                at random, nearer than the positive's distance plus --margin
  hard               the nearest

Distance is the squared one of unit vectors. Neighbours come from FAISS where it is installed (pip
install faiss-cpu), exactly up to 100,000 rows and in the nearest clusters beyond; else from an
exact search.

-o triplets.npy gets the row numbers, int32 [T, 2 + negatives]: `caffe-metric train --triplets`
draws its batches from them. -o triplets.txt gets a line `ANCHOR POSITIVE NEGATIVE ...` for each
triplet, by the names in F.npz (with tabs between names that hold blanks). --list gets the same
images as `FILE LABEL` lines, group by group, for `caffe-metric convert`: a Data layer then reads
groups of 2 + num_negatives rows, as TripletLoss with one bottom takes them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from caffe_metric.data.lists import join_names, labelled_lines
from caffe_metric.data.mining import STRATEGIES, mine
from caffe_metric.evaluation.embeddings import load
from caffe_metric.support.arguments import finite, natural, positive
from caffe_metric.support.errors import UserError
from caffe_metric.support.files import replacing
from caffe_metric.support.text import write_text


def add_arguments(parser):
    parser.add_argument("file", metavar="F.npz", help="embeddings, labels and names, by `extract`")
    parser.add_argument("-o", dest="out", required=True, metavar="triplets.npy or .txt")
    parser.add_argument("--list", metavar="L.txt", help="also the images in order, with labels")
    parser.add_argument("--strategy", choices=STRATEGIES, default="semihard")
    parser.add_argument("--margin", type=finite, default=0.2)
    parser.add_argument("--negatives", type=positive, default=1, metavar="N", help="per anchor")
    parser.add_argument("--neighbours", type=positive, default=100, metavar="K", help="looked at")
    parser.add_argument("--seed", type=natural, default=0)


def run(args):
    embeddings, labels, names = load(args.file)
    names = [str(name) for name in (range(len(labels)) if names is None else names)]
    rng = np.random.default_rng(args.seed)
    try:
        triplets = mine(
            embeddings, labels, args.strategy, args.margin, args.negatives, args.neighbours, rng
        )
    except ValueError as error:
        raise UserError(f"{args.file}: {error}") from error
    if not len(triplets):
        raise UserError(
            f"{args.file}: no triplets; more --neighbours or a larger --margin may help"
        )
    triplets = triplets[rng.permutation(len(triplets))]
    if Path(args.out).suffix == ".npy":
        with replacing(args.out) as path, path.open("wb") as file:
            np.save(file, triplets.astype(np.int32))
        return _done(args, triplets, labels)
    lines = (join_names(names[row] for row in rows) + "\n" for rows in triplets)
    with replacing(args.out) as path:
        write_text(path, "".join(lines))
    if args.list:
        rows = triplets.ravel()
        with replacing(args.list) as path:
            write_text(path, labelled_lines([names[row] for row in rows], labels[rows]))
    return _done(args, triplets, labels)


def _done(args, triplets, labels):
    found = f"{len(triplets)} of {len(labels)} anchors"
    print(f"{args.out}: {found}, each with {args.negatives} negative(s)")
    return 0
