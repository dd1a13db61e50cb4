"""The result as pictures: promises.png, growth.png."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.rows import Point, Result, Row


def draw(result: Result, folder: Path) -> list[Path]:
    """Writes the pictures there is something for; returns their paths."""
    promised = [row for row in result.rows if row.promise is not None and row.ratio is not None]
    paths = []
    if promised:
        paths.append(_save(_promises(promised), folder / "promises.png"))
    if result.points:
        paths.append(_save(_growth(result.points), folder / "growth.png"))
    return paths


def _save(figure, path: Path) -> Path:
    new = path.with_suffix(".new.png")
    figure.savefig(new, dpi=120)
    plt.close(figure)
    return new.replace(path)


def _promises(rows: list[Row]):
    """Every promise as a bar, with its limit at 1."""
    figure, axes = plt.subplots(figsize=(11, 1.2 + 0.33 * len(rows)), layout="constrained")
    places = range(len(rows))
    shares = [row.ratio / row.promise for row in rows]
    colours = ["tab:green" if row.verdict == "kept" else "tab:red" for row in rows]
    axes.barh(places, shares, color=colours, alpha=0.8)
    for place, row in zip(places, rows):
        if row.spread is not None:
            axes.plot([value / row.promise for value in row.spread], [place] * 2, color="black")
        axes.text(
            0.01, place, f"{row.ratio:.3g} × {row.peer}, promised ≤ {row.promise:g}",
            va="center", fontsize=8,
        )  # fmt: skip
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(places, [f"{row.what}, {row.size}" for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("measured / promised (a bar left of 1 is kept; the line spans the quartiles)")
    return figure


def _growth(points: list[Point]):
    """A logarithmic panel a plot, a line a curve."""
    names = list(dict.fromkeys(point.plot for point in points))
    rows = -(-len(names) // 2)
    figure, panels = plt.subplots(
        rows, 2, figsize=(11, 4.2 * rows), layout="constrained", squeeze=False
    )
    for axes in panels.flat[len(names) :]:
        axes.set_visible(False)
    for name, axes in zip(names, panels.flat):
        own = [point for point in points if point.plot == name]
        for curve in dict.fromkeys(point.curve for point in own):
            line = [(point.x, point.y) for point in own if point.curve == curve]
            axes.loglog(*zip(*sorted(line)), "o-", label=curve, markersize=4)
        axes.set(title=name, xlabel=own[0].axis, ylabel=own[0].unit)
        axes.grid(True, which="both", alpha=0.2)
        axes.legend(fontsize=8)
    return figure
