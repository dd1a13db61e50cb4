"""Queries with their nearest neighbours, as a piece of HTML."""

from __future__ import annotations

import html

import numpy as np

from caffe_metric.demo.embed import image_tag
from caffe_metric.evaluation.metrics.neighbours import nearest_rows
from caffe_metric.evaluation.metrics.similarity import unit_rows

COUNT = 8


def query_rows(labels, a_class=1):
    """The first test images of each class: nobody chose them for their neighbours."""
    return np.concatenate(
        [np.flatnonzero(labels == label)[:a_class] for label in np.unique(labels)]
    )


def neighbours_html(embeddings, labels, images, class_names, unseen_classes):
    """A table: a row for each query, its neighbours among all images; wrong ones are marked.

    Returns (html, number of wrong neighbours shown, number shown).
    """
    queries = query_rows(labels)
    found = nearest_rows(unit_rows(embeddings), COUNT)[queries]
    wrong = labels[found] != labels[queries][:, None]
    rows = []
    for query, neighbours, bad in zip(queries, found, wrong):
        name = class_names[labels[query]]
        unseen = " <small>unseen</small>" if labels[query] in unseen_classes else ""
        cells = [
            f"<th>{html.escape(name)}{unseen}</th>",
            f"<td class=query>{_tag(images, query, name)}",
        ]
        for row, is_wrong in zip(neighbours, bad):
            kind = "wrong" if is_wrong else "right"
            cells.append(f"<td class={kind}>{_tag(images, row, class_names[labels[row]])}")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table class=neighbours>{''.join(rows)}</table>", int(wrong.sum()), wrong.size


def _tag(images, row, name):
    return image_tag(images[row], f"{name}, test image {row}")
