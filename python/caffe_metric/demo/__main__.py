"""`python -m caffe_metric.demo [losses] [-o DIR]`: nets, trained and measured on real images.

Three nets, of examples 01 to 03, and a softmax as their baseline; with `losses` beside them the
same LeNet with each other loss.
`choose` trains each with several parameters, and measures them without the test images.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from caffe_metric.demo import choice, recipes
from caffe_metric.demo.databases import TEST, make_databases
from caffe_metric.demo.images import FASHION_FOLDER, load_images
from caffe_metric.demo.measure import measure
from caffe_metric.demo.report import write_report
from caffe_metric.demo.trainings import train_all
from caffe_metric.evaluation.extraction import extract
from caffe_metric.support import paths
from caffe_metric.support.errors import UserError
from caffe_metric.support.files import replacing
from caffe_metric.support.progress import Progress

BLOB = "embedding"  # its name in all nets


def demo(wanted, folder, images_folder=FASHION_FOLDER, seed=None, force=False):
    """Runs all of it; returns {name: Measured}, with pixels first. Writes into `folder` alone.

    wanted: what to train, see recipes.py.
    """
    images = load_images(images_folder)
    print(f"{images.title}: {len(images.train.labels)} training images, ", end="")
    print(f"{len(images.test.labels)} test images", flush=True)
    databases = make_databases(images, folder, seed or 0)
    trainings = train_all(wanted, folder, databases, seed, force)
    for trained in trainings.values():
        note = ", from an earlier run, as nothing has changed" if trained.reused else ""
        print(
            f"{trained.name}: {trained.plan.max_iter} iterations in {trained.seconds:.0f} s{note}"
        )
        for warning in trained.warnings:
            print(f"{trained.name}: {warning}", file=sys.stderr)
    sys.stdout.flush()
    with Progress() as progress:
        embeddings = {"pixels": images.pixels().reshape(len(images.test.labels), -1)}
        for name, trained in trainings.items():
            progress.show(f"embeddings of {name}")
            embeddings[name] = extract(trained.net, trained.weights, folder / TEST, BLOB, 500)[0]
        measured = {}
        for name, array in embeddings.items():
            progress.show(f"evaluating {name}")
            measured[name] = measure(array.astype(np.float32), images.test.labels, images.unseen())
        report = folder / "report.html"
        write_report(report, images, embeddings, measured, trainings, progress)
    with replacing(folder / "summary.json") as path:
        summary = {name: one.summary() for name, one in measured.items()}
        path.write_text(json.dumps(summary, indent=2) + "\n")
    return measured


def choose(folder, args):
    """Trains the candidates of choice.py and returns their table."""
    folder.mkdir(parents=True, exist_ok=True)
    images = choice.split(load_images(Path(args.images)))
    databases = make_databases(images, folder, args.seed or 0)
    known = recipes.examples(paths.tree()) + recipes.losses(paths.tree())
    wanted = choice.candidates(known, args.only)
    trainings = train_all(wanted, folder, databases, args.seed, args.force)
    measured = {}
    for recipe in wanted:
        trained = trainings[recipe.name]
        embeddings = extract(trained.net, trained.weights, folder / TEST, BLOB, 500)[0]
        measured[recipe.title] = measure(
            embeddings.astype(np.float32), images.test.labels, images.unseen()
        )
    return table(measured)


def _wanted(args):
    root = paths.tree()
    known = recipes.compared(root)
    if args.what == "losses":
        known += [recipe for recipe in recipes.losses(root) if recipe.name != recipes.BASELINE]
    return [recipe for recipe in known if not args.only or recipe.name in args.only]


def table(measured):
    """The numbers as text."""
    width = max(12, *(len(name) + 2 for name in measured))
    lines = [f"{'':<{width}}{'recall@1':>10}{'unseen AUC':>13}{'unseen TAR at FAR 1%':>23}"]
    for name, one in measured.items():
        lines.append(
            f"{name:<{width}}{one.recall_at_1:>10.3f}{one.unseen_auc:>13.3f}"
            f"{one.unseen_tar_at_far_1:>23.3f}"
        )
    return "\n".join(lines)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m caffe_metric.demo", description=__doc__)
    parser.add_argument(
        "what",
        nargs="?",
        choices=["three", "losses", "choose"],
        default="three",
        help="(%(default)s)",
    )
    parser.add_argument(
        "-o", dest="out", default="build/demo", metavar="DIR", help="what it writes (%(default)s)"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these of the nets, by name")
    parser.add_argument("--images", default=FASHION_FOLDER, metavar="DIR", help="IDX files")
    parser.add_argument("--seed", type=int, help="instead of the solver files' random_seed")
    parser.add_argument("--force", action="store_true", help="train again, whatever is there")
    args = parser.parse_args(argv)
    folder = Path(args.out)
    started = time.monotonic()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if args.what == "choose":
            print(f"\n{choose(folder / 'choice', args)}")
            return 0
        measured = demo(_wanted(args), folder, Path(args.images), args.seed, args.force)
    except UserError as error:
        print(f"demo: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 1
    print(f"\n{table(measured)}\n")
    print(f"{folder}/report.html, {folder}/summary.json", end="")
    print(f" ({time.monotonic() - started:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
