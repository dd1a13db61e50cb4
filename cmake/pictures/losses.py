"""What each loss does to points of a plane: docs/pictures/LOSS.png, or its numbers.

    losses.py [--numbers] [OUT]

Left the start, an arrow is the way against the gradient; right where 200 steps lead. No Caffe is
needed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import caffe_metric as cm
import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
CLASSES, EACH, STEPS, STEP = 3, 8, 200, 0.03
COLOURS = ("#0072B2", "#D55E00", "#009E73")
ANGULAR = {"normalize_features": True, "scale": 16}

# file of the picture: the loss, whether it wants rows of length 1, whether it has a row a class.
LOSSES = {
    "triplet": (cm.TripletLoss(margin=0.2, mining="SEMIHARD"), True, False),
    "rank_hard": (cm.RankHardLoss(neg_num=4, margin=1), True, False),
    "contrastive": (cm.BatchContrastiveLoss(), False, False),
    "multi_similarity": (cm.MultiSimilarityLoss(), False, False),
    "circle": (cm.CircleLoss(), False, False),
    "sup_con": (cm.SupConLoss(), False, False),
    "lifted_structure": (cm.LiftedStructureLoss(), False, False),
    "proxy_anchor": (lambda classes: cm.ProxyAnchorLoss(num_output=classes), False, True),
    "center": (lambda classes: cm.CenterLoss(num_output=classes), False, True),
    "softmax": (
        lambda classes: cm.MarginSoftmaxLoss(num_output=classes, **ANGULAR),
        False,
        True,
    ),
    "arcface": (
        lambda classes: cm.MarginSoftmaxLoss(num_output=classes, angular_margin=0.5, **ANGULAR),
        False,
        True,
    ),
}


def value(name, x, labels, rows, seed=0):
    """A loss, and its gradients by the features and by the rows of the classes."""
    loss, unit, has_rows = LOSSES[name]
    if has_rows:
        found, (by_x, by_rows) = loss(len(rows))(x, labels, weights=rows)
        return found, by_x, by_rows
    found, by_x = loss(cm.Norm()(x)[0] if unit else x, labels, seed=seed)
    return found, cm.Norm()(x, top_diff=by_x)[1] if unit else by_x, np.zeros_like(rows)


def start():
    """Points of three classes that overlap, and a row for each class."""
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(CLASSES), EACH)
    angles = 2 * np.pi * labels / CLASSES + rng.normal(0, 0.75, len(labels))
    lengths = rng.uniform(0.6, 1.2, len(labels))
    x = lengths[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    turned = 2 * np.pi * np.arange(CLASSES) / CLASSES + 0.8
    return x, labels, np.stack([np.cos(turned), np.sin(turned)], axis=1)


def descend(name, steps=STEPS):
    """Where gradient descent leads: the points and rows after each step, [steps + 1, N, 2]."""
    x, labels, rows = start()
    paths = [(x, rows)]
    rate = None
    for seed in range(steps):
        _, by_x, by_rows = value(name, x, labels, rows, seed)
        size = np.sqrt(np.mean(by_x**2))
        if size > 0:
            # A rate that the first step sets; no later one is longer.
            rate = min(rate or STEP / size, STEP / size)
            x, rows = x - rate * by_x, rows - rate * by_rows
        paths.append((x, rows))
    return [np.stack(one) for one in zip(*paths)]


def picture(name, out):
    from matplotlib.figure import Figure

    x, labels, rows = start()
    _, by_x, _ = value(name, x, labels, rows)
    points, moved = descend(name)
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    limit = 1.1 * max(np.abs(points[[0, -1]]).max(), np.abs(moved[[0, -1]]).max())
    longest = max(np.linalg.norm(by_x, axis=1).max(), 1e-12)
    for axes, title, at in ((left, "gradient", 0), (right, f"after {STEPS} steps", -1)):
        axes.add_artist(_circle())
        for label, colour in enumerate(COLOURS):
            mine = labels == label
            if at:
                for path in points[:, mine].transpose(1, 0, 2):
                    axes.plot(*path.T, color=colour, linewidth=0.6, alpha=0.4)
            axes.scatter(*points[at, mine].T, s=22, color=colour, zorder=3)
            if LOSSES[name][2]:
                axes.scatter(*moved[at, label], s=130, marker="*", color=colour, edgecolors="black")
        axes.set(title=title, aspect="equal", xlim=(-limit, limit), ylim=(-limit, limit))
        axes.set_xticks([])
        axes.set_yticks([])
    arrows = -0.35 * by_x / longest
    left.quiver(*x.T, *arrows.T, angles="xy", scale_units="xy", scale=1, width=0.006, alpha=0.7)
    path = out / f"{name}.png"
    figure.savefig(path, dpi=80)
    _few_colours(path)
    print(path)


def _circle():
    from matplotlib.patches import Circle

    return Circle((0, 0), 1, fill=False, color="#b0b6c2", linewidth=0.8)


def _few_colours(path):
    from PIL import Image

    Image.open(path).convert("RGB").quantize(64).save(path, optimize=True)


def numbers():
    """A line for each loss: 64 rows of 16 classes, 64 dimensions, as nets begin, fail and end."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(16), 4)
    rows = np.eye(16, 64)
    states = {
        "random": rng.normal(size=(64, 64)) / 8,
        "collapsed": np.tile(rng.normal(size=64) / 8, (64, 1)),
        "apart": rows[labels],
    }
    print(f"{'':<18}" + "".join(f"{name:>11}" for name in states))
    for name in LOSSES:
        found = [value(name, x, labels, rows)[0] for x in states.values()]
        print(f"{name:<18}" + "".join(f"{one:>11.3f}" for one in found))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", nargs="?", type=Path, default=ROOT / "docs" / "pictures")
    parser.add_argument("--numbers", action="store_true", help="print what the losses are")
    args = parser.parse_args()
    if args.numbers:
        numbers()
        return
    args.out.mkdir(parents=True, exist_ok=True)
    for name in LOSSES:
        picture(name, args.out)


if __name__ == "__main__":
    main()
