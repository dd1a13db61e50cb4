"""The demo's page, report.html: one file that needs no network."""

from __future__ import annotations

import html
import string
from pathlib import Path

from caffe_metric.demo import maps
from caffe_metric.demo.drawings import class_colour, curve_figure, map_figure
from caffe_metric.demo.embed import figure_tag
from caffe_metric.demo.images import UNSEEN
from caffe_metric.demo.neighbours import neighbours_html
from caffe_metric.demo.recipes import BASELINE
from caffe_metric.evaluation.figures import COLOURS, GRAY, histogram_figure, roc_panels
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
    maps_drawn = {name: map_figure(one, labels[rows], UNSEEN) for name, one in placed.items()}
    page = string.Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        lead=_lead(images, unseen_names, trainings),
        numbers=_numbers(measured, trainings),
        explanation=_EXPLANATION,
        curves=_figures(
            {name: curve_figure(one) for name, one in trainings.items()}, "training curve"
        ),
        pairs=f"{int(histograms['pixels'].sum()):,}",
        unseen=html.escape(_and(unseen_names)),
        roc=_figures(dict(zip(_ROC_TITLES, roc_panels(rocs, colours))), "ROC curves"),
        histograms=_figures(
            {
                name: histogram_figure({"": counts}, HISTOGRAM_BINS, 4.6)
                for name, counts in histograms.items()
            },
            "histogram of similarities",
        ),
        map_count=maps.A_CLASS,
        maps=_figures(maps_drawn, "t-SNE map"),
        classes=_classes(images.class_names),
        neighbours=_neighbours(embeddings, labels, pixels, images.class_names),
        footer=_footer(trainings),
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


_ROC_TITLES = ("Whole", "Small false accept rates")
_EXPLANATION = (
    "<b>Recall at 1</b>: how often the nearest other test image is of the same class, among the "
    "trained classes. <b>MAP@R</b>: the same question, asked of as many neighbours as the class "
    "has images. <b>AUC</b> and <b>TAR at FAR 1%</b>: verification over all pairs of the unseen "
    "classes. Similarity is the cosine."
)


def _lead(images, unseen_names, trainings):
    seen = len(images.class_names) - len(unseen_names)
    beside = " and a softmax beside them" if BASELINE in trainings else ""
    return (
        f"{html.escape(images.title)}: {len(trainings)} small nets, one for each loss{beside}, "
        f"trained on {seen} of {len(images.class_names)} classes. "
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
    head = "<td></td>" + "".join(
        f'<th scope="col">{title}</th>' for title in (*_COLUMNS.values(), "training")
    )
    body = []
    for name, one in measured.items():
        cells = [f'<th scope="row">{html.escape(name)}</th>']
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


def _figures(figures, kind):
    """{title: figure} as pictures of their own, which a narrow page sets one below another."""
    return "\n".join(
        f"<figure><figcaption>{html.escape(title)}</figcaption>"
        f"{figure_tag(figure, f'{kind}: {title}')}</figure>"
        for title, figure in figures.items()
    )


def _classes(class_names):
    """The key of the maps."""
    return "".join(
        f'<li><b style="color:{class_colour(label)}">{"▲" if label in UNSEEN else "●"}</b> '
        f"{html.escape(name)}{' (unseen)' if label in UNSEEN else ''}</li>"
        for label, name in enumerate(class_names)
    )


def _neighbours(embeddings, labels, pixels, class_names):
    parts = []
    for name, array in embeddings.items():
        grid, wrong, shown = neighbours_html(array, labels, pixels, class_names, UNSEEN)
        title = f"{html.escape(name)}: {wrong} of {shown} wrong"
        parts.append(
            f"<div><h3>{title}</h3>"
            f'<div class=scroll tabindex=0 role=region aria-label="{title}">{grid}</div></div>'
        )
    return "\n".join(parts)


def _footer(trainings):
    return "; ".join(
        f"{trained.name}: {trained.plan.max_iter} iterations in {trained.seconds:.0f} s"
        + (" (an earlier run's, nothing had changed)" if trained.reused else "")
        for trained in trainings.values()
    )
