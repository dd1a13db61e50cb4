"""The report of an evaluation: files in a folder, one of them a page that needs no network."""

from __future__ import annotations

import base64
import contextlib
import io
import json
from pathlib import Path

import numpy as np

from caffe_metric.evaluation.report import HISTOGRAM_BINS
from caffe_metric.support.files import replacing

TEMPLATE = Path(__file__).with_name("page.html")
KINDS = {
    "same": "one identity, least similar first",
    "different": "two identities, most similar first",
}


def compared(measured) -> list[tuple[str, list[str]]]:
    """The rows of {title: Measured} side by side, those that all have or some."""
    columns = [numbered(one.report.rows()) for one in measured.values()]
    names = []
    for column in columns:
        before = 0
        for name in column:
            if name in names:
                before = names.index(name) + 1
            else:
                names.insert(before, name)
                before += 1
    return [(name[0], [column.get(name, "") for column in columns]) for name in names]


def numbered(rows) -> dict:
    """{(name, what it belongs to): value}: a threshold belongs to the row above."""
    found, above = {}, ""
    for name, value in rows:
        if name != "its threshold":
            above = name
        found[name, above] = value
    return found


def write_page(folder, measured, embeddings, pictures=None):
    """Writes metrics.json, roc.png, histogram.png and, where jinja2 is installed, report.html.

    measured: {title: Measured}; embeddings: their Embeddings, by title; pictures: Pictures or None.
    Returns the files' names.
    """
    from caffe_metric.evaluation.figures import histogram_figure, roc_figure

    folder = Path(folder)
    single = len(measured) == 1
    reports = {title: one.report for title, one in measured.items()}
    roc = roc_figure({"" if single else title: one.pairs.roc for title, one in measured.items()})
    histogram = histogram_figure(
        {"" if single else title: one.pairs.histograms for title, one in measured.items()},
        HISTOGRAM_BINS,
    )
    files = {
        "metrics.json": json.dumps(next(iter(reports.values())) if single else reports, indent=2)
        + "\n",
        "roc.png": _png(roc),
        "histogram.png": _png(histogram),
    }
    with contextlib.suppress(ModuleNotFoundError):  # jinja2
        files["report.html"] = _page(measured, embeddings, pictures, files)
    for name, content in files.items():
        with replacing(folder / name) as path:
            path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return list(files)


def _page(measured, embeddings, pictures, files):
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        titles=list(measured),
        rows=compared(measured),
        roc=_text(files["roc.png"]),
        histogram=_text(files["histogram.png"]),
        hardest=[
            (title, _hardest(one.pairs.hardest, embeddings[title], pictures))
            for title, one in measured.items()
        ],
    )


def _hardest(hardest, embeddings, pictures):
    rows = sorted({row for pairs in hardest.values() for i, j, _ in pairs for row in (i, j)})
    shown = pictures.shown(embeddings, rows) if pictures else {}
    encoded = {row: _text(_picture(array)) for row, array in shown.items()}
    return [
        (
            KINDS[kind],
            [
                {
                    "pictures": [encoded[row] for row in (i, j) if row in encoded],
                    "score": f"{score:.4f}",
                    "left": _name(embeddings, i),
                    "right": _name(embeddings, j),
                }
                for i, j, score in pairs
            ],
        )
        for kind, pairs in hardest.items()
    ]


def _name(embeddings, row):
    name = f"row {row}" if embeddings.names is None else embeddings.names[row]
    return f"{name} ({embeddings.labels[row]})"


def _png(figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    return file.getvalue()


def _picture(array) -> bytes:
    """PNG of uint8 [channels, height, width], BGR or gray."""
    from PIL import Image

    file = io.BytesIO()
    array = np.asarray(array, np.uint8)
    Image.fromarray(array[0] if len(array) == 1 else array[::-1].transpose(1, 2, 0)).save(
        file, "PNG"
    )
    return file.getvalue()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
