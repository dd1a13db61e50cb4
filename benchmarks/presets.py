"""What the presets reach on classes that no net has seen: the tables of docs/training.md.

    .venv/bin/python -m benchmarks.presets [--iterations 400] [--seeds 1,2,3] [--neck] [--balanced]

Fashion-MNIST, 1000 training images of each of seven classes; verification over all pairs of 1500
test images of the other three (pullover, sandal, bag), raw pixels beside. --balanced: ten choices
of the other three, each class thrice. The settings of the presets were chosen with --validation:
seven choices of three unseen classes among the seven, and of training images. --neck: the trunk
ends in a BatchNorm, which takes the common mean away. --logit-scale: ArcFace's and CosFace's,
instead of the preset's.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from caffe_metric.data import datum
from caffe_metric.data.identity.source import open_images
from caffe_metric.data.lmdb_file import write_lmdb
from caffe_metric.demo.images import UNSEEN, load_images
from caffe_metric.evaluation.extraction import extract
from caffe_metric.evaluation.metrics.similarity import unit_rows
from caffe_metric.evaluation.metrics.verification import roc
from caffe_metric.training.presets import PRESETS

FOLDER = Path("build/presets")
# Of the seven, each thrice, each two of them once.
VALIDATION = ((0, 1, 4), (1, 3, 6), (3, 4, 7), (4, 6, 9), (0, 6, 7), (1, 7, 9), (0, 3, 9))
# Of all ten, each thrice, no two of them twice.
BALANCED = tuple(tuple(sorted((k, (k + 1) % 10, (k + 3) % 10))) for k in range(10))
TRAINED, MEASURED = 1000, 500  # images a class
CONVOLUTION = """
layer {{ name: "{0}" type: "Convolution" bottom: "{1}" top: "{0}"
  convolution_param {{ num_output: {2} kernel_size: {3} stride: 2
    weight_filler {{ type: "msra" }} }} }}
{4}layer {{ name: "relu_{0}" type: "ReLU" bottom: "{0}" top: "{0}" }}
"""
TRUNK = """
layer {{ name: "input" type: "Input" top: "data"
  input_param {{ shape {{ dim: 1 dim: 1 dim: 28 dim: 28 }} }} }}
{0}layer {{ name: "embedding" type: "InnerProduct" bottom: "{1}" top: "embedding"
  inner_product_param {{ num_output: 64 weight_filler {{ type: "xavier" }} }} }}
"""
NECK = """
layer { name: "embedding_neck" type: "BatchNorm" bottom: "embedding" top: "embedding_neck" }
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--rate", help="else the preset's own")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--presets", default=",".join(PRESETS))
    parser.add_argument("--neck", action="store_true", help="a BatchNorm behind the embedding")
    parser.add_argument("--logit-scale", help="where they are normalised, else the preset's own")
    choices = parser.add_mutually_exclusive_group()
    choices.add_argument("--validation", action="store_true")
    choices.add_argument("--balanced", action="store_true")
    args = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    seeds = [int(seed) for seed in args.seeds.split(",")]
    splits = VALIDATION if args.validation else BALANCED if args.balanced else (UNSEEN,)
    for unseen in splits:
        prepare(unseen, args.validation)
    pixels = [of_pixels(unseen) for unseen in splits]
    print(f"{'raw pixels':22}{row(pixels)}", flush=True)
    for name in args.presets.split(","):
        found = [
            measure(train(name, unseen, seed, args), unseen) for unseen in splits for seed in seeds
        ]
        print(f"{name:22}{row(found)}", flush=True)


def row(numbers):
    each = " ".join(f"{number:.4f}" for number in numbers)
    return f"{np.mean(numbers):.4f}  ({each})"


def database(unseen, what):
    return FOLDER / f"{what}_{''.join(map(str, unseen))}.lmdb"


def prepare(unseen, validation):
    """The databases of a choice of unseen classes; validation leaves the test's alone."""
    images = load_images()
    classes = [one for one in range(10) if one not in unseen]
    if validation:
        classes = [one for one in classes if one not in UNSEEN]
    held_out = images.train if validation else images.test
    put(images.train, classes, database(unseen, "train"), TRAINED)
    put(held_out, unseen, database(unseen, "unseen"), MEASURED)


def put(source, classes, path, count):
    rng = np.random.default_rng(0)
    chosen = [rng.permutation(np.flatnonzero(source.labels == one))[:count] for one in classes]
    rows = rng.permutation(np.concatenate(chosen))
    labels = {one: number for number, one in enumerate(classes)}
    records = (("", datum.encode(source.load(k), labels[source.labels[k]])) for k in rows)
    write_lmdb(path, records, force=True)


def train(name, unseen, seed, args):
    """The folder of a finished training."""
    key = f"{''.join(map(str, unseen))}_{args.iterations}_{seed}{'_neck' * args.neck}"
    folder = FOLDER / f"{name}_{key}"
    trunk = FOLDER / "trunk.prototxt"
    trunk.write_text(TRUNK.format(convolutions(), "conv2") + NECK * args.neck)
    options = ["--scale", "0.00390625", "--iterations", str(args.iterations)]
    options += ["--rate", args.rate] if args.rate else []
    data = ["--data", str(database(unseen, "train"))]
    run("preset", name, "--trunk", str(trunk), *data, *options, "-o", str(folder))
    train_stages(folder, seed, args.logit_scale)
    return folder


def train_stages(folder, seed, logit_scale=None):
    """Trains what a preset wrote; logit_scale: of its last stage, instead of the preset's."""
    if logit_scale:
        scale = r"(normalize_features: true scale:) \S+"
        change(folder / "net.prototxt", scale, rf"\1 {logit_scale}")
    for solver in sorted(folder.glob("*solver.prototxt")):
        run("train", "--solver", str(solver), "--seed", str(seed), "--threads", "1")


def change(path, old, new):
    path.write_text(re.sub(old, new, path.read_text()))


def convolutions(behind=""):
    """Two layers, with what stands behind each, {0} in it its name."""
    layers = ("conv1", "data", 16, 5), ("conv2", "conv1", 32, 3)
    return "".join(CONVOLUTION.format(*layer, behind.format(layer[0])) for layer in layers)


def run(*arguments):
    command = [sys.executable, "-m", "caffe_metric", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def model_of(folder):
    text = (folder / "solver.prototxt").read_text()
    last = re.search(r"max_iter: (\d+)", text)[1]
    return f"{re.search('snapshot_prefix: .(.*).', text)[1]}_iter_{last}.caffemodel"


def measure(folder, unseen, model=None):
    """The AUC of the unseen classes."""
    data = str(database(unseen, "unseen"))
    found = extract(str(folder / "net.prototxt"), model or model_of(folder), data, blob_of(folder))
    return auc(found[0], found[1])


def blob_of(folder):
    """What is deployed: the embedding, behind its neck where it has one."""
    return "embedding_neck" if folder.name.endswith("_neck") else "embedding"


def of_pixels(unseen):
    source = open_images(database(unseen, "unseen"))
    images = [source.load(k).ravel() for k in range(len(source.labels))]
    return auc(np.stack(images).astype(np.float32), source.labels)


def auc(embeddings, labels):
    unit = unit_rows(embeddings)
    upper = np.triu_indices(len(labels), 1)
    return roc((unit @ unit.T)[upper], labels[upper[0]] == labels[upper[1]]).auc()


if __name__ == "__main__":
    main()
