"""What the presets reach on people that no net has seen: a table of docs/faces.md.

    .venv/bin/python -m benchmarks.people [--iterations 400] [--seeds 1,2,3] [--people 30] [--neck]

Drawn people (examples/10_faces/draw_people.py), 46 x 56 and gray: 30 of 10 images are trained, in
batches of 60 (--people: the first of them), and verified are all pairs of the images of 40 others;
raw pixels beside. Each seed draws people anew; the settings of the presets were chosen on the
people of another.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
from caffe_metric.data.conversion import convert, keep_classes
from caffe_metric.data.identity.source import open_images
from caffe_metric.data.picture import Picture
from caffe_metric.data.sources import open_source
from caffe_metric.evaluation.extraction import extract
from caffe_metric.training.presets import PRESETS

from benchmarks import presets

FOLDER = Path("build/people")
DRAW = Path(__file__).resolve().parent.parent / "examples/10_faces/draw_people.py"
TRAINED, MEASURED, BATCH = 30, 40, 60
OPTIONS = ["--mean", "127.5", "--scale", "0.0078125", "--batch", str(BATCH)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--presets", default=",".join(PRESETS))
    parser.add_argument("--people", type=int, default=TRAINED, help="that are trained")
    parser.add_argument("--neck", action="store_true", help="a BatchNorm behind the embedding")
    parser.add_argument("--logit-scale", help="where they are normalised, else the preset's own")
    args = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    seeds = args.seeds.split(",")
    for seed in seeds:
        prepare(seed, args.people)
    print(f"{'raw pixels':22}{presets.row([of_pixels(seed) for seed in seeds])}", flush=True)
    for name in args.presets.split(","):
        found = [measure(train(name, seed, args), seed) for seed in seeds]
        print(f"{name:22}{presets.row(found)}", flush=True)


def database(seed, what):
    return FOLDER / f"{what}_{seed}.lmdb"


def prepare(seed, trained):
    drawn = FOLDER / f"drawn_{seed}"
    people = ["--people", str(TRAINED + MEASURED), "--seed", seed]
    subprocess.run([sys.executable, str(DRAW), str(drawn), *people], check=True)
    source = open_source(drawn, picture=Picture(gray=True))
    others = range(TRAINED, TRAINED + MEASURED)
    convert(keep_classes(source, include=range(trained)), database(seed, "train"), force=True)
    convert(keep_classes(source, include=others), database(seed, "unseen"), force=True)


def train(name, seed, args):
    """The folder of a finished training."""
    folder = FOLDER / f"{name}_{args.iterations}_{seed}{'_neck' * args.neck}"
    trunk = FOLDER / "trunk.prototxt"
    text = presets.TRUNK.format(presets.convolutions(), "conv2") + presets.NECK * args.neck
    trunk.write_text(text.replace("dim: 28 dim: 28", "dim: 56 dim: 46"))
    data = ["--data", str(database(seed, "train")), "--iterations", str(args.iterations)]
    presets.run("preset", name, "--trunk", str(trunk), *data, *OPTIONS, "-o", str(folder))
    presets.train_stages(folder, seed, args.logit_scale)
    return folder


def measure(folder, seed):
    """The AUC of the people that were not trained."""
    net, model = str(folder / "net.prototxt"), presets.model_of(folder)
    found = extract(net, model, str(database(seed, "unseen")), presets.blob_of(folder))
    return presets.auc(found[0], found[1])


def of_pixels(seed):
    source = open_images(database(seed, "unseen"))
    images = [source.load(k).ravel() for k in range(len(source.labels))]
    return presets.auc(np.stack(images).astype(np.float32), source.labels)


if __name__ == "__main__":
    main()
