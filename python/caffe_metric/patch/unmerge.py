"""Takes our lines out of a file that its owner may have edited since."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from caffe_metric.patch.text import lines_of


@dataclass(frozen=True)
class Unmerged:
    """The file without our lines, and the line numbers (from 1) where that cannot be told."""

    text: str
    conflicts: tuple[int, ...] = ()


def unmerge(before: str, after: str, current: str, hunks: list[list[int]]) -> Unmerged:
    """`current` with each of our hunks put back, where its owner has not touched the same lines.

    before, after: the file before and after our change, which differ by `hunks` (text.hunks_of).
    An owner's hunk conflicts with ours where they share a line, or where it inserts lines inside
    ours. Lines inserted right above or below ours are kept.
    """
    if current == after:
        return Unmerged(before)
    old, ours, now = lines_of(before), lines_of(after), lines_of(current)
    matcher = difflib.SequenceMatcher(None, ours, now, autojunk=False)
    edits = [op[1:] for op in matcher.get_opcodes() if op[0] != "equal"]
    conflicts, pieces, done = [], [], 0
    for first, last, start, end in hunks:
        clashing = [e for e in edits if _overlap(start, end, e[0], e[1])]
        conflicts += [line for e in clashing for line in range(e[2] + 1, max(e[3], e[2] + 1) + 1)]
        if clashing:
            continue
        begin, stop = _moved(edits, start, end)
        pieces += [*now[done:begin], *old[first:last]]
        done = stop
    pieces += now[done:]
    for number, line in enumerate(pieces[:-1]):
        if not line.endswith("\n"):  # it was the last line of the file, and is no more
            pieces[number] = line + "\n"
    return Unmerged("".join(pieces), tuple(dict.fromkeys(conflicts)))


def _overlap(start: int, end: int, first: int, last: int) -> bool:
    if first == last:
        return start < first < end or start == first == end
    if start == end:
        return first < start < last
    return max(start, first) < min(end, last)


def _moved(edits: list[tuple], start: int, end: int) -> tuple[int, int]:
    """Where the untouched lines [start, end) stand now. Insertions at `start` stay above them."""
    shift = sum((e[3] - e[2]) - (e[1] - e[0]) for e in edits if e[1] <= start)
    return start + shift, end + shift
