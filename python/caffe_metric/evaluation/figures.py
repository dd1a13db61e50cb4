"""Figures of an evaluation, as matplotlib Figures: nothing is shown, no window system is needed."""

from __future__ import annotations

import numpy as np

# A colour for each curve, told apart by people with any colour vision (Okabe and Ito 2008).
COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000",
    "#882255", "#44AA99", "#999933", "#661100", "#6699CC",
)  # fmt: skip
GRAY = "#7a7a7a"


def new_figure(width, height):
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def roc_figure(curves, colours=COLOURS):
    """ROC curves {name: Roc}: the whole, and small FAR on a logarithmic axis."""
    figure = new_figure(10, 4.2)
    for axes, draw in zip(figure.subplots(1, 2), (draw_roc, draw_small_far)):
        draw(axes, curves, colours)
        axes.legend(frameon=False, fontsize=9)
    return figure


def roc_panels(curves, colours=COLOURS):
    """The two halves of roc_figure as figures of their own, their legends below."""
    panels = []
    for draw in (draw_roc, draw_small_far):
        figure = new_figure(4.6, 3.4 + 0.2 * len(curves))
        draw(figure.subplots(), curves, colours)
        figure.legend(loc="outside lower left", frameon=False, fontsize=9)
        panels.append(figure)
    return panels


def draw_roc(axes, curves, colours):
    """The whole of the curves, their AUC as labels."""
    for (name, roc), colour in zip(curves.items(), colours):
        drawn = roc.thinned()
        label = f"{name}  AUC {roc.auc():.3f}".strip()
        axes.plot(drawn.far, drawn.tar, color=colour, label=label, linewidth=1.8)
    axes.plot([0, 1], [0, 1], color=GRAY, linewidth=0.8, linestyle=":")
    _finish_roc(axes)


def draw_small_far(axes, curves, colours):
    """The curves at small FAR, on a logarithmic axis, TAR at FAR 1% as labels."""
    for (name, roc), colour in zip(curves.items(), colours):
        drawn = roc.thinned()
        seen = drawn.far > 0
        label = f"{name}  TAR {roc.tar_at(0.01):.3f} at FAR 1%".strip()
        axes.plot(drawn.far[seen], drawn.tar[seen], color=colour, label=label, linewidth=1.8)
    axes.axvline(0.01, color=GRAY, linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.set_xlim(1e-4, 1)
    _finish_roc(axes)


def _finish_roc(axes):
    axes.set_xlabel("false accept rate")
    axes.set_ylabel("true accept rate")
    axes.set_ylim(0, 1.01)
    axes.grid(alpha=0.25)


def histogram_figure(histograms, bins, least_width=6.8):
    """Similarities of same and different pairs, {name: counts [2, bins - 1]}, a panel each."""
    figure = new_figure(max(least_width, 3.4 * len(histograms)), 3)
    panels = figure.subplots(1, len(histograms), sharey=True, squeeze=False)[0]
    centres, width = (bins[1:] + bins[:-1]) / 2, bins[1] - bins[0]
    for axes, (name, counts) in zip(panels, histograms.items()):
        for values, label, colour in zip(counts, ("same", "different"), COLOURS):
            density = values / max(1, values.sum()) / width
            axes.fill_between(centres, density, step="mid", alpha=0.45, color=colour, label=label)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("cosine similarity")
        drawn = centres[np.asarray(counts).sum(axis=0) > 0]
        axes.set_xlim(drawn.min() - 0.05, 1.02)
        axes.grid(alpha=0.25)
    panels[0].set_ylabel("density of pairs")
    panels[0].legend(frameon=False, fontsize=9)
    return figure
