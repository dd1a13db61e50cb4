"""Source text as bytes in a str, and edits of it.

Files are decoded as Latin-1: every byte is one character, so offsets are byte offsets, and any
encoding, mixed line ends and a missing final newline come back unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass

ENCODING = "latin-1"


@dataclass(frozen=True)
class Edit:
    """Replaces text[start:end] by `text`; an insertion where start == end."""

    start: int
    end: int
    text: str


def decode(data: bytes) -> str:
    return data.decode(ENCODING)


def encode(text: str) -> bytes:
    return text.encode(ENCODING)


def newline_of(text: str) -> str:
    """The line end of the file: that of its first line."""
    first = text.find("\n")
    return "\r\n" if first > 0 and text[first - 1] == "\r" else "\n"


def with_newlines(block: str, newline: str) -> str:
    return block.replace("\r\n", "\n").replace("\n", newline)


def line_of(text: str, offset: int) -> int:
    """The number, from 1, of the line that holds the offset."""
    return text.count("\n", 0, offset) + 1


def line_start(text: str, offset: int) -> int:
    return text.rfind("\n", 0, offset) + 1


def line_end(text: str, offset: int) -> int:
    """The offset after the line's newline."""
    end = text.find("\n", offset)
    return len(text) if end < 0 else end + 1


def lines_of(text: str) -> list[str]:
    """Lines with their ends. Only a line feed ends one (str.splitlines knows more)."""
    lines = text.split("\n")
    last = lines.pop()
    return [line + "\n" for line in lines] + ([last] if last else [])


def apply_edits(text: str, edits: list[Edit]) -> str:
    """The text with all edits made; they are offsets into the text as it was."""
    pieces, done = [], 0
    for edit in sorted(edits, key=lambda e: (e.start, e.end)):
        if edit.start < done:
            raise ValueError(f"edits overlap in line {line_of(text, edit.start)}")
        pieces += [text[done : edit.start], edit.text]
        done = edit.end
    return "".join(pieces) + text[done:]


def hunks_of(text: str, edits: list[Edit]) -> list[list[int]]:
    """The whole lines that the edits touch: [first, last) before, [first, last) after; from 0."""
    spans = []
    for edit in sorted(edits, key=lambda e: (e.start, e.end)):
        start, end = line_start(text, edit.start), edit.end
        whole = edit.start == start and end == line_start(text, end)
        if not (whole and (not edit.text or edit.text.endswith("\n"))):
            end = line_end(text, end)
        if spans and start <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]), [*spans[-1][2], edit])
        else:
            spans.append((start, end, [edit]))
    hunks, shift = [], 0
    for start, end, members in spans:
        moved = [Edit(e.start - start, e.end - start, e.text) for e in members]
        first = text.count("\n", 0, start)
        before = len(lines_of(text[start:end]))
        after = len(lines_of(apply_edits(text[start:end], moved)))
        hunks.append([first, first + before, first + shift, first + shift + after])
        shift += after - before
    return hunks
