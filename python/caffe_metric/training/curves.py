"""Training curves of a log."""

from __future__ import annotations


def figure(log, title=""):
    """A matplotlib Figure of a TrainingLog: a panel for each curve, train and test together."""
    from matplotlib.figure import Figure

    names = [name for name in {**log.train, **log.test} if name != "loss output"]
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    drawn = Figure(figsize=(4.2 * columns, 2.9 * rows), layout="constrained")
    for axes, name in zip(drawn.subplots(rows, columns, squeeze=False).ravel(), names):
        for curves, label in ((log.train, "train"), (log.test, "test")):
            if name in curves:
                axes.plot(*curves[name], label=label, linewidth=1.2)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("iteration")
        axes.grid(alpha=0.3)
        if name in log.train and name in log.test:
            axes.legend()
    for axes in drawn.axes[len(names) :]:
        axes.set_visible(False)
    if title:
        drawn.suptitle(title)
    return drawn
