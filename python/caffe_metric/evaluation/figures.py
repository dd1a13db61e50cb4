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
    whole, small = figure.subplots(1, 2)
    for (name, roc), colour in zip(curves.items(), colours):
        drawn = roc.thinned()
        label = f"{name}  AUC {roc.auc():.3f}".strip()
        whole.plot(drawn.far, drawn.tar, color=colour, label=label, linewidth=1.8)
        seen = drawn.far > 0
        label = f"{name}  TAR {roc.tar_at(0.01):.3f} at FAR 1%".strip()
        small.plot(drawn.far[seen], drawn.tar[seen], color=colour, label=label, linewidth=1.8)
    whole.plot([0, 1], [0, 1], color=GRAY, linewidth=0.8, linestyle=":")
    small.axvline(0.01, color=GRAY, linewidth=0.8, linestyle=":")
    small.set_xscale("log")
    small.set_xlim(1e-4, 1)
    for axes in (whole, small):
        axes.set_xlabel("false accept rate")
        axes.set_ylabel("true accept rate")
        axes.set_ylim(0, 1.01)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=9)
    return figure


def histogram_figure(histograms, bins):
    """Similarities of same and different pairs, {name: counts [2, bins - 1]}, a panel each."""
    figure = new_figure(3.4 * max(2, len(histograms)), 3)
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
