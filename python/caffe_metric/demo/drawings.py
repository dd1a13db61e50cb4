"""The demo's own figures: training curves and maps."""

from __future__ import annotations

import numpy as np

from caffe_metric.evaluation.figures import COLOURS, GRAY, new_figure

# Ten classes: a colour each; the unseen are told by their marker and black edge.
CLASS_COLOURS = (
    "#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f",
    "#edc948", "#b07aa1", "#ff9da7", "#9c755f", "#6b6b6b",
)  # fmt: skip


PANELS = 3  # in a row


def curves_figure(trainings):
    """A panel for each training: its loss, and what its layer reports, on a second axis."""
    rows = -(-len(trainings) // PANELS)
    figure = new_figure(4.6 * PANELS, 3.1 * rows)
    panels = figure.subplots(rows, PANELS, squeeze=False).ravel()
    for axes, trained in zip(panels, trainings):
        iterations, losses = trained.log.train["loss"]
        axes.plot(iterations, losses, color=COLOURS[0], linewidth=1.6)
        axes.set_title(trained.name, fontsize=11)
        axes.set_xlabel("iteration")
        axes.set_ylabel("loss", color=COLOURS[0])
        axes.set_ylim(0, None)
        axes.grid(alpha=0.25)
        _draw_reports(axes.twinx(), trained)
    for axes in panels[len(trainings) :]:
        axes.set_visible(False)
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


def maps_figure(maps, labels, class_names, unseen_classes):
    """Scatter plots of {name: positions [N, 2]}, coloured by class."""
    columns = 2
    rows = -(-len(maps) // columns)
    figure = new_figure(6.2 * columns, 5.4 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, positions) in zip(panels, maps.items()):
        for label in np.unique(labels):
            unseen = label in unseen_classes
            points = positions[labels == label]
            axes.scatter(
                *points.T,
                s=20 if unseen else 9,
                marker="^" if unseen else "o",
                color=CLASS_COLOURS[label % len(CLASS_COLOURS)],
                edgecolors="black" if unseen else "none",
                linewidths=0.4,
                alpha=0.85,
                label=class_names[label] + (" (unseen)" if unseen else ""),
            )
        axes.set_title(name, fontsize=12)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_color(GRAY)
    for axes in panels[len(maps) :]:
        axes.set_visible(False)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=5, frameon=False, markerscale=2)
    return figure
