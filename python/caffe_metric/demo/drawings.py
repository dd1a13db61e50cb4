"""The demo's own figures: training curves and maps."""

from __future__ import annotations

import numpy as np

from caffe_metric.evaluation.figures import COLOURS, GRAY, new_figure

# Ten classes: a colour each; the unseen are told by their marker and black edge.
CLASS_COLOURS = (
    "#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f",
    "#edc948", "#b07aa1", "#ff9da7", "#9c755f", "#6b6b6b",
)  # fmt: skip


def curve_figure(trained):
    """The loss of a training, and what its layer reports, on a second axis."""
    figure = new_figure(4.6, 3.1)
    axes = figure.subplots()
    iterations, losses = trained.log.train["loss"]
    axes.plot(iterations, losses, color=COLOURS[0], linewidth=1.6)
    axes.set_xlabel("iteration")
    axes.set_ylabel("loss", color=COLOURS[0])
    axes.set_ylim(0, None)
    axes.grid(alpha=0.25)
    _draw_reports(axes.twinx(), trained)
    return figure


def _draw_reports(axes, trained):
    """What a layer's further top tells: lambda, or the active fraction."""
    curves = {
        meaning: trained.log.train[top]
        for top, meaning in trained.plan.reports.items()
        if top in trained.log.train
    }
    style = {"linewidth": 1.2, "alpha": 0.85}
    if "lambda" in curves:
        axes.plot(*curves["lambda"], color=COLOURS[1], **style)
        axes.set_ylabel("λ", color=COLOURS[1])
        axes.set_yscale("log")
    elif "active" in curves:
        axes.plot(*curves["active"], color=COLOURS[1], **style)
        axes.set_ylabel("active fraction", color=COLOURS[1])
        axes.set_ylim(0, 1)
    else:
        axes.set_axis_off()


def map_figure(positions, labels, unseen_classes):
    """A scatter plot of positions [N, 2], coloured by class, without a word."""
    figure = new_figure(4.6, 4)
    axes = figure.subplots()
    for label in np.unique(labels):
        unseen = label in unseen_classes
        axes.scatter(
            *positions[labels == label].T,
            s=16 if unseen else 7,
            marker="^" if unseen else "o",
            color=class_colour(label),
            edgecolors="black" if unseen else "none",
            linewidths=0.4,
            alpha=0.85,
        )
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(GRAY)
    return figure


def class_colour(label):
    return CLASS_COLOURS[label % len(CLASS_COLOURS)]
