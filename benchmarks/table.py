"""The result as text."""

from __future__ import annotations

from benchmarks.rows import Row

HEADER = ("what", "size", "threads", "ours", "peer", "", "ratio (quartiles)", "promise", "verdict")


def text(rows: list[Row], machine: dict) -> str:
    """A table with a line for each row, and what it was measured on."""
    lines = [HEADER, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADER))]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines
    ]
    table.insert(1, "-" * (sum(widths) + 2 * len(widths) - 2))
    return "\n".join([about(machine), "", *table])


def markdown(rows: list[Row], machine: dict) -> str:
    """The same table for a page."""
    lines = [HEADER, ("---",) * len(HEADER), *(_cells(row) for row in rows)]
    return "\n".join([about(machine), "", *(f"| {' | '.join(line)} |" for line in lines)]) + "\n"


def about(machine: dict) -> str:
    """The machine in one line."""
    return (
        f"{machine['processor']}, {machine['cores']} cores, load {machine['load']:.1f} "
        f"at the start, {machine['date']}"
    )


def _cells(row: Row) -> tuple[str, ...]:
    head = (row.what, row.size, str(row.threads))
    promise = f"≤ {row.promise:g}" if row.promise is not None else ""
    if row.ratio is None:
        return (*head, "", row.peer, "", row.missing, promise, row.verdict)
    ratio = f"{row.ratio:.3g}"
    if row.spread is not None:
        ratio += f" ({row.spread[0]:.3g} to {row.spread[1]:.3g})"
    ours, theirs = (f"{value:.3g} {row.unit}" for value in (row.ours, row.theirs))
    return (*head, ours, row.peer, theirs, ratio, promise, row.verdict)
