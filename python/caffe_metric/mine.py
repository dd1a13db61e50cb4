"""`caffe-metric mine`: triplets for a whole data set, by its embeddings.

For each image (the anchor) a positive of its class at random, and as negatives images of other
classes that are near: `semihard` ones are farther than the positive, but by less than --margin;
`hard` ones are the nearest. Distance is the squared one of unit vectors. Nearest neighbours come
from FAISS where it is installed (pip install faiss-cpu), else from an exact search.

-o gets a line `ANCHOR POSITIVE NEGATIVE ...` for each triplet, by the names in F.npz. --list gets
the same images as `FILE LABEL` lines, group by group, for `caffe-metric convert`: a Data layer then
reads groups of 2 + num_negatives rows, as TripletLoss with one bottom takes them.
"""

from __future__ import annotations

import numpy as np

from caffe_metric.convert import positive
from caffe_metric.errors import UserError
from caffe_metric.evaluate import load
from caffe_metric.files import replacing
from caffe_metric.metrics.neighbours import nearest_rows
from caffe_metric.metrics.similarity import unit_rows

STRATEGIES = ("semihard", "hard")


def mine(embeddings, labels, strategy, margin=0.2, negatives=1, neighbours=100, rng=None):
    """Mines triplets among the rows of embeddings [N, D]; int64 [T, 2 + negatives].

    Columns: anchor, positive, negatives (nearest first for `hard`, in random order for
    `semihard`). neighbours: how many nearest rows of each are looked through. An anchor without a
    partner, or without enough negatives among its neighbours, gives no triplet. Squared distances
    of unit rows, as TripletLoss has them after Norm.
    """
    rng = rng or np.random.default_rng(0)
    labels = np.asarray(labels)
    unit = unit_rows(embeddings)
    near = nearest_rows(unit, neighbours)
    positives = _positives(labels, rng)
    anchors = np.flatnonzero(positives >= 0)
    near, positives = near[anchors], positives[anchors]
    to_positive = _distance(unit, anchors, positives)
    to_near = np.stack([_distance(unit, anchors, column) for column in near.T], axis=1)
    wanted = labels[near] != labels[anchors, None]
    if strategy == "semihard":
        wanted &= to_near > to_positive[:, None]
        wanted &= to_near < to_positive[:, None] + margin
        order = np.where(wanted, rng.random(near.shape), np.inf)
    else:
        order = np.where(wanted, np.arange(near.shape[1]), np.inf)
    chosen = np.argsort(order, axis=1, kind="stable")[:, :negatives]
    enough = wanted.sum(axis=1) >= negatives
    found = np.take_along_axis(near, chosen, axis=1)
    return np.column_stack([anchors, positives, found])[enough]


def _positives(labels, rng):
    """Another row of each row's class, at random; -1 where there is none."""
    positives = np.full(len(labels), -1)
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    for rows in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        if len(rows) > 1:
            # Anybody but oneself, each with the same chance.
            steps = rng.integers(1, len(rows), len(rows))
            positives[rows] = rows[(np.arange(len(rows)) + steps) % len(rows)]
    return positives


def _distance(unit, left, right):
    return np.square(unit[left] - unit[right]).sum(axis=1)


def add_arguments(parser):
    parser.add_argument("file", metavar="F.npz", help="embeddings, labels and names, by `extract`")
    parser.add_argument("-o", dest="out", required=True, metavar="triplets.txt")
    parser.add_argument("--list", metavar="L.txt", help="also the images in order, with labels")
    parser.add_argument("--strategy", choices=STRATEGIES, default="semihard")
    parser.add_argument("--margin", type=float, default=0.2)
    parser.add_argument("--negatives", type=positive, default=1, metavar="N", help="per anchor")
    parser.add_argument("--neighbours", type=positive, default=100, metavar="K", help="looked at")
    parser.add_argument("--seed", type=int, default=0)


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
    with replacing(args.out) as path, path.open("w") as file:
        file.writelines(" ".join(names[row] for row in rows) + "\n" for rows in triplets)
    if args.list:
        with replacing(args.list) as path, path.open("w") as file:
            file.writelines(f"{names[row]} {labels[row]}\n" for row in triplets.ravel())
    print(f"{args.out}: {len(triplets)} of {len(labels)} anchors with {args.negatives} negatives")
    return 0
