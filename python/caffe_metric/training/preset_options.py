"""The options that `preset` and `train --preset` share, and what is written by them."""

from __future__ import annotations

import numpy as np

from caffe_metric.support.arguments import finite, numbers, positive
from caffe_metric.support.errors import UserError
from caffe_metric.training.presets import RATE, Task, default_iterations, pace, write
from caffe_metric.training.trunks import read_trunk


def add_options(parser, required):
    parser.add_argument("--trunk", required=required, metavar="NET.prototxt")
    parser.add_argument("-o", dest="folder", required=required, metavar="DIR")
    parser.add_argument("--data", metavar="D", help="LMDB, list or folder (else the trunk's own)")
    parser.add_argument("--classes", type=positive, metavar="N", help="(else those of the data)")
    parser.add_argument("--embedding", metavar="BLOB", help="where the trunk ends")
    parser.add_argument("--iterations", type=positive, metavar="N", help="(20 epochs)")
    parser.add_argument("--batch", type=positive, metavar="N", default=64)
    parser.add_argument(
        "--rate", type=finite, metavar="LR", help="base_lr (0.01, less of few classes)"
    )
    parser.add_argument("--scale", type=finite, metavar="S", help="of pixels, e.g. 0.0078125")
    parser.add_argument("--mean", type=numbers, metavar="M[,M,M]", help="subtracted from pixels")
    parser.add_argument("--mirror", action="store_true", help="mirror images at random")
    parser.add_argument("--crop", type=positive, metavar="N", help="a square crop at random")


def write_files(name, args):
    """Writes nets and solvers, prints the commands that train; returns the solvers, in order."""
    trunk = read_trunk(args.trunk, args.embedding)
    source = args.data or trunk.source
    if not source:
        raise UserError(f"{args.trunk}: reads no data itself: say by --data what to train on")
    if args.batch < 4:
        raise UserError(f"--batch is {args.batch}: triplets need 4 images at least")
    chosen = {"scale": args.scale, "mean_value": args.mean, "crop_size": args.crop}
    trunk.picture.update({name: value for name, value in chosen.items() if value})
    if args.mirror:
        trunk.picture["mirror"] = True
    classes, images = _count(source, args.classes)
    iterations = args.iterations or default_iterations(images, args.batch)
    rate = RATE * pace(classes) if args.rate is None else args.rate
    task = Task(source, classes, images, iterations, args.batch, rate)
    print(f"{source}: {classes} classes, {images} images")
    written = write(name, trunk, task, args.folder)
    for solver, text in written:
        print(f"caffe-metric train --solver {solver}  # {text}")
    return [solver for solver, _ in written]


def _count(source, classes):
    """Number of classes and images of a source, which labels them 0 ... C-1."""
    from caffe_metric.data.identity.source import open_images

    labels = open_images(source).labels
    found = int(labels.max()) + 1
    if classes is not None and classes < found:
        raise UserError(f"--classes is {classes}, but {source} has the label {found - 1}")
    missing = found - len(np.unique(labels))
    if missing:
        print(f"{source}: {missing} labels below {found} have no image")
    return classes or found, len(labels)
