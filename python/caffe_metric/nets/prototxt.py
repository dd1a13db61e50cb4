"""The text format of protobuf as a tree, with the place of every field: no schema is needed.

What a net of an unknown Caffe says can be read so, field by field, and a part of it replaced while
the rest, comments and all, stays as it was written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Iterator

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n\f\v]+|\#[^\n]*)
      | (?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
      | (?P<word>[-+]?[\w.]+(?:(?<=[eE])[-+]\d+)?)
      | (?P<mark>[{}<>\[\]:,;/-])""",
    re.VERBOSE,
)


class SyntaxFault(ValueError):
    """The text is no prototxt. line: where."""

    def __init__(self, line: int, message: str):
        super().__init__(message)
        self.line = line


@dataclass
class Entry:
    """A field: `name: value` or `name { ... }`.

    values: the text of its scalars (several of `[a, b]`); of adjacent strings, they as they stand.
    fields: those within its braces; None for a scalar. start, end: its text. body: the text within
    its braces. line: that it begins in.
    """

    name: str
    line: int
    start: int
    end: int = 0
    values: list[str] = field(default_factory=list)
    fields: list[Entry] | None = None
    body: tuple = (0, 0)

    def all(self, *path: str) -> Iterator[Entry]:
        """The fields of a path of names below this one."""
        for entry in self.fields or ():
            if entry.name == path[0]:
                if len(path) == 1:
                    yield entry
                else:
                    yield from entry.all(*path[1:])

    def text(self, *path: str) -> str:
        """The last value at a path, without quotes; "" where there is none."""
        found = [value for entry in self.all(*path) for value in entry.values]
        return unquoted(found[-1]) if found else ""


def unquoted(value: str) -> str:
    return value[1:-1] if value[:1] in ("'", '"') else value


def parse(text: str) -> list[Entry]:
    """The fields at the top of a text. Raises SyntaxFault."""
    return _Reader(text).fields(None)


class _Reader:
    def __init__(self, text: str):
        self.text = text
        self.tokens = []  # (kind, token, start, line)
        start, line = 0, 1
        while start < len(text):
            match = _TOKEN.match(text, start)
            if match is None:
                raise SyntaxFault(line, f"unexpected character {ascii(text[start])}")
            if match.lastgroup != "space":
                self.tokens.append((match.lastgroup, match.group(), start, line))
            line += match.group().count("\n")
            start = match.end()
        self.place = 0
        self.last_line = line

    def _peek(self) -> str:
        return self.tokens[self.place][1] if self.place < len(self.tokens) else ""

    def _next(self):
        if self.place >= len(self.tokens):
            raise SyntaxFault(self.last_line, "ends within a field")
        self.place += 1
        return self.tokens[self.place - 1]

    def fields(self, closing) -> list[Entry]:
        found = []
        while self._peek() != (closing or ""):
            kind, name, start, line = self._next()
            if kind != "word":
                raise SyntaxFault(line, f"{ascii(name)} where the name of a field should stand")
            entry = Entry(name, line, start)
            self._value(entry)
            found.append(entry)
            if self._peek() in (",", ";"):
                self.place += 1
        return found

    def _value(self, entry: Entry) -> None:
        if self._peek() == ":":
            self.place += 1
        elif self._peek() not in ("{", "<"):
            raise SyntaxFault(entry.line, f"no ':' after '{entry.name}'")
        opening = self._peek()
        if opening in ("{", "<"):
            begin = self._next()[2] + 1
            entry.fields = self.fields("}" if opening == "{" else ">")
            close = self._next()[2]
            entry.body, entry.end = (begin, close), close + 1
            return
        if opening == "[":
            self.place += 1
            while self._peek() != "]":
                self._scalar(entry)
                if self._peek() == ",":
                    self.place += 1
            closed = self._next()
            entry.end = closed[2] + 1
            return
        self._scalar(entry)

    def _scalar(self, entry: Entry) -> None:
        kind, token, start, line = self._next()
        if kind == "mark" and token == "-":
            kind, rest, start, line = self._next()
            token = "-" + rest
            entry.end = start + len(rest)
        else:
            entry.end = start + len(token)
        if kind == "mark":
            raise SyntaxFault(line, f"{ascii(token)} where a value should stand")
        while kind == "string" and self.place < len(self.tokens):
            following = self.tokens[self.place]
            if following[0] != "string":
                break
            self.place += 1
            token = token[:-1] + following[1][1:]
            entry.end = following[2] + len(following[1])
        entry.values.append(token)
