"""As much of C++ as the patcher must see: registered layers, classes, includes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from caffe_metric.patch.text import line_of

_PARTS = re.compile(
    r"""
    //(?:\\\r?\n|[^\n])*
  | /\*.*?(?:\*/|\Z)
  | R"(?P<mark>[^\s()\\]{0,16})\(.*?\)(?P=mark)"
  | "(?:\\.|[^"\\\n])*"
  | (?<![0-9a-fA-F])'(?:\\.|[^'\\\n])*'
    """,
    re.VERBOSE | re.DOTALL,
)
_MARK = "\xef\xbb\xbf"
_REGISTERED = re.compile(r"\bREGISTER_LAYER_(?:CLASS|CREATOR)\w*\s*\(\s*(\w+)[^;()]*\)\s*;?")
_REGISTERER = re.compile(r"\bLayerRegisterer\s*<[^<>]*>\s*\w+\s*\(\s*\"(\w+)\"")
_CLASS = re.compile(r"\b(?:class|struct)\s+(?:\w+\s+)?(\w+)\s*(?:final\s*)?(?::(?!:)|\{)")
_INSTANTIATED = re.compile(r"\bINSTANTIATE_\w+\s*\(\s*(\w+)\s*\)")
_INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*[<\"]([^>\"\n]+)[>\"]", re.MULTILINE)


@dataclass(frozen=True)
class Found:
    """A name in a source file: text[start:end] is what defines it."""

    name: str
    start: int
    end: int
    line: int


def blank(text: str, keep_strings: bool = False) -> str:
    """The text with comments, and strings, turned into blanks: offsets and lines stay.

    A byte order mark (in Latin-1) is a blank, too.
    """
    if text.startswith(_MARK):
        text = " " * len(_MARK) + text[len(_MARK) :]

    def wipe(match: re.Match) -> str:
        part = match.group()
        if keep_strings and not part.startswith(("//", "/*")):
            return part
        return re.sub(r"[^\r\n]", " ", part)

    return _PARTS.sub(wipe, text)


def registered(text: str) -> list[Found]:
    """The layer types that the file registers."""
    code = blank(text)
    found = [_found(text, match) for match in _REGISTERED.finditer(code)]
    if "LayerRegisterer" in code:
        found += [_found(text, m) for m in _REGISTERER.finditer(blank(text, keep_strings=True))]
    return found


def classes(text: str) -> list[Found]:
    """The classes that the file defines, or instantiates, as a layer's .cpp and .cu do."""
    code = blank(text)
    matches = [*_CLASS.finditer(code), *_INSTANTIATED.finditer(code)]
    return [_found(text, match) for match in matches]


def includes(text: str) -> list[Found]:
    """The headers that the file includes, as they are written."""
    return [_found(text, m) for m in _INCLUDE.finditer(blank(text, keep_strings=True))]


def _found(text: str, match: re.Match) -> Found:
    return Found(match.group(1), match.start(), match.end(), line_of(text, match.start()))
