"""Pictures inside an HTML page, as data: the page needs no other file and no network."""

from __future__ import annotations

import base64
import html
import io

DPI = 130  # of figures


def image_tag(pixels, title):
    """An <img> of uint8 [height, width]."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return _tag(file.getvalue(), title)


def figure_tag(figure, title):
    """An <img> of a matplotlib Figure."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    return _tag(file.getvalue(), title)


def _tag(png, title):
    data = base64.b64encode(png).decode("ascii")
    text = html.escape(title, quote=True)
    return f'<img src="data:image/png;base64,{data}" alt="{text}" title="{text}">'
