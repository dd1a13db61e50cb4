"""`python -m caffe_metric.demo choose [-o DIR]`: parameters, chosen without the test images.

Of the seven trained classes five are trained on, and two that look alike play the unseen: three
times, two others each time. What is measured are the last sixth of the training images of each.
Neither the test images nor the unseen classes of the demo are looked at.
"""

from __future__ import annotations

import dataclasses
import re

import numpy as np

from caffe_metric.data.conversion import keep_classes
from caffe_metric.demo.images import UNSEEN, Images
from caffe_metric.demo.measure import Measured
from caffe_metric.demo.recipes import Recipe

# By the labels of the whole: T-shirt and shirt, dress and coat, sneaker and ankle boot.
PLAY_UNSEEN = ((0, 6), (3, 4), (7, 9))
ITERATIONS = 400

# What is tried: for each recipe the values of parameters. The examples have those with the greatest
# score.
CANDIDATES = {
    "triplet": [{"margin": 0.1}, {"margin": 0.2}, {"margin": 0.5}],
    "rank_hard": [{"margin": 0.1}, {"margin": 0.3}, {"margin": 0.5}],
    "margin": [
        {"lambda_min": 1},
        {"lambda_min": 5},
        {"lambda_min": 20},
        {"lambda_min": 50},
        {"lambda_min": 100},
    ],
    "contrastive": [
        {"positive_margin": 0, "negative_margin": 1},
        {"positive_margin": 0, "negative_margin": 0.5},
        {"positive_margin": 0.25, "negative_margin": 1},
        {"positive_margin": 0.5, "negative_margin": 1},
    ],
    "multi_similarity": [
        {"base": 0.5, "beta": 50},
        {"base": 0.75, "beta": 50},
        {"base": 0.5, "beta": 20},
        {"base": 0.5, "beta": 10},
        {"base": 0.75, "beta": 20},
        {"base": 0.75, "beta": 10},
    ],
    "circle": [
        {"margin": 0.25, "gamma": 16},
        {"margin": 0.25, "gamma": 32},
        {"margin": 0.25, "gamma": 64},
        {"margin": 0.25, "gamma": 128},
        {"margin": 0.4, "gamma": 32},
        {"margin": 0.4, "gamma": 64},
        {"margin": 0.25, "gamma": 8},
        {"margin": 0.25, "gamma": 4},
    ],
    "sup_con": [{"temperature": 0.05}, {"temperature": 0.1}, {"temperature": 0.2}],
    "lifted_structure": [
        {"form": "GENERALIZED", "scale": 1, "margin": 1},
        {"form": "GENERALIZED", "scale": 1, "margin": 0.5},
        {"form": "SONG", "scale": 1, "margin": 1},
        {"form": "SONG", "scale": 4, "margin": 1},
        {"form": "SONG", "scale": 8, "margin": 1},
        {"form": "GENERALIZED", "scale": 4, "margin": 1},
    ],
    "proxy_anchor": [
        {"lr_mult": 10, "margin": 0.1, "alpha": 32},
        {"lr_mult": 10, "margin": 0.1, "alpha": 16},
        {"lr_mult": 10, "margin": 0.3, "alpha": 32},
        {"lr_mult": 10, "margin": 0.1, "alpha": 8},
        {"lr_mult": 10, "margin": 0.1, "alpha": 4},
        {"lr_mult": 10, "margin": 0.1, "alpha": 2},
        {"lr_mult": 30, "margin": 0.1, "alpha": 8},
        {"lr_mult": 10, "margin": 0.1, "alpha": 1},
        {"lr_mult": 30, "margin": 0.1, "alpha": 2},
        {"lr_mult": 3, "margin": 0.1, "alpha": 2},
        {"lr_mult": 1, "margin": 0.1, "alpha": 2},
        {"lr_mult": 1, "margin": 0.1, "alpha": 4},
        {"lr_mult": 1, "margin": 0.3, "alpha": 2},
        {"lr_mult": 1, "margin": 0, "alpha": 2},
    ],
    "center": [
        {"loss_weight": 0.003},
        {"loss_weight": 0.01},
        {"loss_weight": 0.03},
        {"loss_weight": 0.1},
        {"loss_weight": 0.3},
    ],
}
# Rates by the iteration, beside the solver's steps: fewer iterations go through all of them.
RATES = {"margin": "gamma"}


def score(measured: list[Measured]) -> float:
    """The mean over the splits of the mean of recall at 1 and AUC."""
    return float(np.mean([(one.recall_at_1 + one.unseen_auc) / 2 for one in measured]))


def split(images: Images, unseen: tuple) -> Images:
    """Training and validation images, of the trained classes alone, some of them `unseen`."""
    known = keep_classes(images.train, exclude=UNSEEN)
    labels = known.labels
    last = np.concatenate([_last_sixth(np.flatnonzero(labels == one)) for one in np.unique(labels)])
    held = np.isin(np.arange(len(labels)), last)
    training = np.flatnonzero(~held & ~np.isin(labels, unseen))
    return dataclasses.replace(
        images,
        train=known.select(training),
        test=known.select(np.flatnonzero(held)),
        unseen_classes=unseen,
    )


def _last_sixth(rows: np.ndarray) -> np.ndarray:
    return rows[len(rows) - len(rows) // 6 :]


def candidates(recipes: list[Recipe], names=None) -> list[Recipe]:
    """A recipe for each candidate, of fewer steps; names: of the recipes that are wanted."""
    made = []
    for recipe in recipes:
        if names and recipe.name not in names:
            continue
        for number, values in enumerate(CANDIDATES.get(recipe.name, [])):
            named = " ".join(f"{key} {value}" for key, value in values.items())
            made.append(_changed(recipe, f"{recipe.name}_{number}", values, named))
    return made


def _changed(recipe: Recipe, name: str, values, title: str) -> Recipe:
    net, solver = recipe.net, recipe.solver
    start = net.index("layer {", net.index('name: "projection"'))  # what follows the embedding
    for key, value in values.items():
        head, count = re.subn(rf"\b{key}: [^\s}}]+", f"{key}: {value}", net[start:])
        assert count == 1, f"{recipe.name}: {key} stands {count} times behind its embedding"
        net = net[:start] + head
    steps = int(re.search(r"max_iter: (\d+)", solver)[1])
    if recipe.name in RATES:
        net = re.sub(
            rf"\b{RATES[recipe.name]}: (\S+)",
            lambda found: f"{RATES[recipe.name]}: {float(found[1]) * steps / ITERATIONS:g}",
            net,
        )
    solver = re.sub(
        r"\b(stepvalue|max_iter): (\d+)",
        lambda found: f"{found[1]}: {int(found[2]) * ITERATIONS // steps}",
        solver,
    )
    solver = solver.replace(f"demo/{recipe.name}", f"demo/{name}")
    return Recipe(name, solver, net, f"{recipe.name}, {title}")
