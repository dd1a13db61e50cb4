"""The demo's page, report.html: one file that needs no network."""

from __future__ import annotations

import html
import string
from pathlib import Path

from caffe_metric.demo import maps
from caffe_metric.demo.drawings import curves_figure, maps_figure
from caffe_metric.demo.embed import figure_tag
from caffe_metric.demo.images import UNSEEN
from caffe_metric.demo.neighbours import neighbours_html
from caffe_metric.evaluation.figures import COLOURS, GRAY, histogram_figure, roc_figure
from caffe_metric.evaluation.report import HISTOGRAM_BINS
from caffe_metric.support.files import replacing

TEMPLATE = Path(__file__).with_name("page.html")


def write_report(path, images, embeddings, measured, trainings, progress):
    """Writes the page.

    images: Images; embeddings and measured: {name: array [N, D]} and {name: Measured}, pixels
    first; trainings: {name: Trained}.
    """
    labels, pixels = images.test.labels, images.pixels()
    rows = maps.chosen_rows(labels)
    progress.show("drawing maps")
    placed = maps.make_maps({name: array[rows] for name, array in embeddings.items()})
    progress.show("drawing figures")
    colours = (GRAY, *COLOURS)
    rocs = {name: one.roc for name, one in measured.items()}
    histograms = {name: one.histograms for name, one in measured.items()}
    unseen_names = [images.class_names[label] for label in UNSEEN]
    maps_drawn = maps_figure(placed, labels[rows], images.class_names, UNSEEN)
    page = string.Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        lead=_lead(images, unseen_names, len(trainings)),
        numbers=_numbers(measured, trainings),
        explanation=_EXPLANATION,
        curves=figure_tag(curves_figure(list(trainings.values())), "training curves"),
        pairs=f"{int(histograms['pixels'].sum()):,}",
        unseen=html.escape(_and(unseen_names)),
        roc=figure_tag(roc_figure(rocs, colours), "ROC curves"),
        histograms=figure_tag(histogram_figure(histograms, HISTOGRAM_BINS), "histograms"),
        map_count=maps.A_CLASS,
        maps=figure_tag(maps_drawn, "t-SNE maps"),
        neighbours=_neighbours(embeddings, labels, pixels, images.class_names),
        footer=_footer(trainings),
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


_EXPLANATION = (
    "<b>Recall at 1</b>: how often the nearest other test image is of the same class, among the "
    "trained classes. <b>MAP@R</b>: the same question, asked of as many neighbours as the class "
    "has images. <b>AUC</b> and <b>TAR at FAR 1%</b>: verification over all pairs of the unseen "
    "classes. Similarity is the cosine."
)


def _lead(images, unseen_names, count):
    seen = len(images.class_names) - len(unseen_names)
    return (
        f"{html.escape(images.title)}: {count} small nets, one for each loss, trained on {seen} of "
        f"{len(images.class_names)} classes. "
        f"{html.escape(_and(unseen_names).capitalize())} were kept out of training, to see "
        f"whether the metric holds for what it has never met."
    )


def _and(words):
    return f"{', '.join(words[:-1])} and {words[-1]}"


_COLUMNS = {
    "recall_at_1": "recall at 1",
    "map_at_r": "MAP@R",
    "unseen_auc": "unseen AUC",
    "unseen_tar_at_far_1": "unseen TAR at FAR 1%",
}


def _numbers(measured, trainings):
    head = "".join(f"<th>{title}</th>" for title in ("", *_COLUMNS.values(), "training"))
    body = []
    for name, one in measured.items():
        cells = [f"<th>{html.escape(name)}</th>"]
        for column in _COLUMNS:
            value = getattr(one, column)
            bar = f'<span class="bar"><i style="width:{100 * value:.1f}%"></i></span>'
            cells.append(f"<td>{value:.3f}{bar}</td>")
        trained = trainings.get(name)
        cells.append(f"<td>{trained.seconds:.0f} s</td>" if trained else "<td>none</td>")
        kind = ' class="pixels"' if trained is None else ""
        body.append(f"<tr{kind}>{''.join(cells)}</tr>")
    return (
        f'<table class="numbers"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table>"
    )


def _neighbours(embeddings, labels, pixels, class_names):
    parts = []
    for name, array in embeddings.items():
        grid, wrong, shown = neighbours_html(array, labels, pixels, class_names, UNSEEN)
        parts.append(f"<div><h3>{html.escape(name)}: {wrong} of {shown} wrong</h3>{grid}</div>")
    return "\n".join(parts)


def _footer(trainings):
    return "; ".join(
        f"{trained.name}: {trained.plan.max_iter} iterations in {trained.seconds:.0f} s"
        + (" (an earlier run's, nothing had changed)" if trained.reused else "")
        for trained in trainings.values()
    )
