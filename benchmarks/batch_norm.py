"""What BatchNorm's window does to a model that is tested right away: a table of docs/training.md.

    .venv/bin/python -m benchmarks.batch_norm [--iterations 300] [--rate 0.05] [--seeds 1,2,3]

The data of benchmarks.presets; a softmax over the seven classes, 100 images a batch, at a rate that
stays: snapshots in the middle of a training. BatchNorm stands behind five convolutions and a
product. What is learned does not depend on the window: TRAIN uses the batch's own averages.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from caffe_metric.demo.images import UNSEEN
from caffe_metric.evaluation.extraction import extract

from benchmarks import presets

FOLDER = Path("build/batch_norm")
STEPS = 100
BATCH_NORM = """layer {{ name: "bn_{0}" type: "BatchNorm" bottom: "{0}" top: "{0}" }}
layer {{ name: "scale_{0}" type: "Scale" bottom: "{0}" top: "{0}"
  scale_param {{ bias_term: true }} }}
"""
CONVOLUTION = """
layer {{ name: "{0}" type: "Convolution" bottom: "{1}" top: "{0}"
  convolution_param {{ num_output: 32 kernel_size: 3 pad: 1 weight_filler {{ type: "msra" }} }} }}
"""
PRODUCT = """
layer { name: "fc1" type: "InnerProduct" bottom: "conv5" top: "fc1"
  inner_product_param { num_output: 128 weight_filler { type: "msra" } } }
"""
RELU = 'layer {{ name: "relu_{0}" type: "ReLU" bottom: "{0}" top: "{0}" }}\n'


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--seeds", default="1,2,3")
    args = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    presets.FOLDER.mkdir(parents=True, exist_ok=True)
    presets.prepare(UNSEEN, False)
    (FOLDER / "trunk.prototxt").write_text(trunk())
    found = {}
    for seed in args.seeds.split(","):
        for window in ("0.999", "0.9"):
            folder = train(window, args.iterations, args.rate, seed)
            for moment in range(STEPS, args.iterations + 1, STEPS):
                model = presets.model_of(folder).replace(f"_{args.iterations}.", f"_{moment}.")
                found.setdefault((window, moment), []).append(measure(folder, model))
                if window == "0.9":
                    found.setdefault(("anew", moment), []).append(
                        measure(folder, anew(folder, model))
                    )
    for (window, moment), numbers in sorted(found.items()):
        print(f"{window:6} {moment:5}  {presets.row(numbers)}", flush=True)


def anew(folder, model):
    """The model with averages measured anew, over 200 batches."""
    measured = str(folder / "anew.caffemodel")
    net, data = str(folder / "net.prototxt"), str(presets.database(UNSEEN, "train"))
    presets.run("weights", model, measured, "--net", net, "--batch-norm", data)
    return measured


def trunk():
    layers = presets.convolutions(BATCH_NORM)
    for place in (3, 4, 5):
        name = f"conv{place}"
        layers += CONVOLUTION.format(name, f"conv{place - 1}")
        layers += BATCH_NORM.format(name) + RELU.format(name)
    layers += PRODUCT + BATCH_NORM.format("fc1") + RELU.format("fc1")
    return presets.TRUNK.format(layers, "fc1")


def train(window, iterations, rate, seed):
    """The folder of a finished training."""
    folder = FOLDER / f"{window}_{rate}_{seed}"
    options = ["--scale", "0.00390625", "--batch", "100", "--iterations", str(iterations)]
    data = ["--data", str(presets.database(UNSEEN, "train")), "--rate", str(rate)]
    trunk = str(FOLDER / "trunk.prototxt")
    presets.run("preset", "softmax", "--trunk", trunk, *data, *options, "-o", str(folder))
    presets.change(folder / "net.prototxt", r"(moving_average_fraction): \S+", rf"\1: {window}")
    presets.change(folder / "solver.prototxt", r'lr_policy: "poly"\npower: 1', 'lr_policy: "fixed"')
    presets.change(folder / "solver.prototxt", r"snapshot: \d+", f"snapshot: {STEPS}")
    solver = str(folder / "solver.prototxt")
    presets.run("train", "--solver", solver, "--seed", seed, "--threads", "1")
    return folder


def measure(folder, model):
    """The AUC of verification on the unseen classes."""
    data = str(presets.database(UNSEEN, "unseen"))
    rows, labels, _ = extract(str(folder / "net.prototxt"), str(model), data, "embedding")
    return presets.auc(rows, labels)


if __name__ == "__main__":
    main()
