"""`python -m caffe_metric.demo [losses] [-o DIR]`: nets, trained and measured on real images.

Three nets, of examples 01 to 03, and a softmax as their baseline; with `losses` beside them the
same LeNet with each other loss. `--seeds` trains each with several seeds, and prints means.
`choose` trains each with several parameters, and measures them without the test images.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from caffe_metric.demo import choice, recipes, tables
from caffe_metric.demo.databases import TEST, make_databases
from caffe_metric.demo.images import FASHION_FOLDER, load_images
from caffe_metric.demo.measure import measure
from caffe_metric.demo.report import write_report
from caffe_metric.demo.trainings import TOGETHER, train_all
from caffe_metric.evaluation.extraction import extract
from caffe_metric.support import paths
from caffe_metric.support.errors import UserError
from caffe_metric.support.files import replacing
from caffe_metric.support.progress import Progress

BLOB = "embedding"  # its name in all nets


def demo(wanted, folder, images_folder=FASHION_FOLDER, seed=None, force=False, together=TOGETHER):
    """Runs all of it; returns {name: Measured}, with pixels first. Writes into `folder` alone.

    wanted: what to train, see recipes.py; together: so many at a time.
    """
    images = load_images(images_folder)
    print(f"{images.title}: {len(images.train.labels)} training images, ", end="")
    print(f"{len(images.test.labels)} test images", flush=True)
    trainings, embeddings, measured = _train(wanted, folder, images, seed, force, together)
    with Progress() as progress:
        write_report(folder / "report.html", images, embeddings, measured, trainings, progress)
    with replacing(folder / "summary.json") as path:
        summary = {name: one.summary() for name, one in measured.items()}
        path.write_text(json.dumps(summary, indent=2) + "\n")
    return measured


def _train(wanted, folder, images, seed, force, together, with_pixels=True):
    """Returns what was trained, embeddings and Measured, each by name."""
    folder.mkdir(parents=True, exist_ok=True)
    databases = make_databases(images, folder, seed or 0)
    trainings = train_all(wanted, folder, databases, seed, force, together=together)
    for trained in trainings.values():
        note = ", from an earlier run, as nothing has changed" if trained.reused else ""
        print(
            f"{trained.name}: {trained.plan.max_iter} iterations in {trained.seconds:.0f} s{note}"
        )
        for warning in trained.warnings:
            print(f"{trained.name}: {warning}", file=sys.stderr)
    sys.stdout.flush()
    embeddings = {}
    if with_pixels:
        embeddings["pixels"] = images.pixels().reshape(len(images.test.labels), -1)
    measured = {}
    with Progress() as progress:
        for name, trained in trainings.items():
            progress.show(f"embeddings of {name}")
            embeddings[name] = extract(trained.net, trained.weights, folder / TEST, BLOB, 500)[0]
        for name, array in embeddings.items():
            progress.show(f"evaluating {name}")
            measured[name] = measure(array.astype(np.float32), images.test.labels, images.unseen())
    return trainings, embeddings, measured


def with_seeds(wanted, folder, args):
    """Trains with each of the seeds; returns the table of means and ranges, and notes all."""
    images = load_images(Path(args.images))
    runs = []
    for seed in args.seeds:
        print(f"seed {seed}", flush=True)
        where = folder / f"seed_{seed}"
        runs.append(_train(wanted, where, images, seed, args.force, args.together)[2])
    with replacing(folder / "seeds.json") as path:
        noted = {
            seed: {name: one.summary() for name, one in run.items()}
            for seed, run in zip(args.seeds, runs)
        }
        path.write_text(json.dumps(noted, indent=2) + "\n")
    return tables.of_seeds({name: [run[name] for run in runs] for name in runs[0]})


def choose(folder, args):
    """Trains the candidates of choice.py on each split, and returns their table."""
    images = load_images(Path(args.images))
    known = recipes.examples(paths.tree()) + recipes.losses(paths.tree())
    wanted = choice.candidates(known, args.only)
    measured = {recipe.title: [] for recipe in wanted}
    for unseen in choice.PLAY_UNSEEN:
        where = folder / "_".join(["without", *map(str, unseen)])
        split = choice.split(images, unseen)
        found = _train(wanted, where, split, args.seed, args.force, args.together, False)[2]
        for recipe in wanted:
            measured[recipe.title].append(found[recipe.name])
        names = ", ".join(images.class_names[label] for label in unseen)
        of_split = {recipe.title: found[recipe.name] for recipe in wanted}
        print(f"\nwithout {names}\n{tables.of_nets(of_split)}\n", flush=True)
    return tables.of_candidates(measured)


def _wanted(args):
    root = paths.tree()
    known = recipes.compared(root)
    if args.what == "losses":
        known += [recipe for recipe in recipes.losses(root) if recipe.name != recipes.BASELINE]
    return [recipe for recipe in known if not args.only or recipe.name in args.only]


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
    parser.add_argument(
        "--seeds", type=int, nargs="+", metavar="N", help="train with each, print means and ranges"
    )
    parser.add_argument(
        "-j", dest="together", type=int, default=TOGETHER, metavar="N",
        help="nets trained side by side, a core each (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="train again, whatever is there")
    args = parser.parse_args(argv)
    folder = Path(args.out)
    started = time.monotonic()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if args.what == "choose":
            print(f"\n{choose(folder / 'choice', args)}")
            return 0
        if args.seeds:
            print(f"\n{with_seeds(_wanted(args), folder, args)}")
            return 0
        measured = demo(
            _wanted(args), folder, Path(args.images), args.seed, args.force, args.together
        )
    except UserError as error:
        print(f"demo: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 1
    print(f"\n{tables.of_nets(measured)}\n")
    print(f"{folder}/report.html, {folder}/summary.json", end="")
    print(f" ({time.monotonic() - started:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
