"""Rows of cells as text and as HTML."""

from __future__ import annotations

import html


def text(rows, gap: int = 2) -> str:
    """Lines with their cells one below the other; the last cell of a line is as long as it is."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width + gap) for cell, width in zip(row[:-1], widths)]
        lines.append("".join([*cells, row[-1]]).rstrip())
    return "\n".join(lines)


def as_html(rows, head: bool = False) -> str:
    """A table; with `head` its first row names the columns."""
    lines = ["<table>"]
    for number, row in enumerate(rows):
        tag = "th" if head and number == 0 else "td"
        cells = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)
        lines.append(f"<tr>{cells}</tr>")
    return "\n".join([*lines, "</table>"])
