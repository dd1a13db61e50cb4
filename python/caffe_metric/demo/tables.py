"""The demo's numbers as text."""

from __future__ import annotations

import numpy as np

from caffe_metric.demo.choice import score

# Column: what of Measured.
COLUMNS = {
    "recall@1": "recall_at_1",
    "unseen AUC": "unseen_auc",
    "unseen TAR at FAR 1%": "unseen_tar_at_far_1",
}


def of_nets(measured):
    """A row a net. measured: {name: Measured}."""
    rows = {
        name: [f"{getattr(one, field):.3f}" for field in COLUMNS.values()]
        for name, one in measured.items()
    }
    return _table(list(COLUMNS), rows)


def of_seeds(measured):
    """A row a net: the mean over its seeds, and from least to greatest. {name: [Measured]}."""
    return _table(list(COLUMNS), {name: _ranges(ones) for name, ones in measured.items()})


def of_candidates(measured):
    """A row a candidate: means over the splits, ranges, and their score. {title: [Measured]}."""
    rows = {title: [*_ranges(ones), f"{score(ones):.4f}"] for title, ones in measured.items()}
    return _table([*COLUMNS, "score"], rows)


def _ranges(ones):
    values = np.array([[getattr(one, field) for field in COLUMNS.values()] for one in ones])
    return [
        f"{mean:.3f} ({low:.3f}-{high:.3f})"
        for mean, low, high in zip(values.mean(axis=0), values.min(axis=0), values.max(axis=0))
    ]


def _table(columns, rows):
    first = max(12, *(len(name) + 2 for name in rows))
    widths = [
        max(len(column), *(len(row[at]) for row in rows.values())) + 3
        for at, column in enumerate(columns)
    ]
    lines = [["", *columns], *([name, *row] for name, row in rows.items())]
    return "\n".join(
        f"{line[0]:<{first}}" + "".join(f"{cell:>{width}}" for cell, width in zip(line[1:], widths))
        for line in lines
    )
