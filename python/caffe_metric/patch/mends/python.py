"""Breaks of pycaffe's Python files with current NumPy and scikit-image."""

from __future__ import annotations

import re

from caffe_metric.patch.mends.mend import Mend, replace_group
from caffe_metric.patch.text import Edit

_PARTS = re.compile(
    r"""(?:\"\"\".*?\"\"\"|'''.*?'''|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|\#[^\n]*)""",
    re.DOTALL,
)
_AS_GREY = re.compile(r"\bimread\s*\([^\n]*?\b(as_grey)\s*=")
_TOSTRING = re.compile(r"\.(tostring)\s*\(\s*\)")
_FROMSTRING = re.compile(r"\b(?:np|numpy)\.(fromstring)(\()")
_ALIAS = re.compile(r"(?<![\w.])((?:np|numpy)\.(float|int|bool|object))(?![\w.])")


def as_grey(text: str) -> list[Edit]:
    return [replace_group(match, 1, "as_gray") for match in _AS_GREY.finditer(_blank(text))]


def byte_strings(text: str) -> list[Edit]:
    code = _blank(text)
    edits = [replace_group(match, 1, "tobytes") for match in _TOSTRING.finditer(code)]
    for match in _FROMSTRING.finditer(code):
        end = _closing(code, match.end())
        if end and "sep" not in code[match.end() : end]:
            edits.append(replace_group(match, 1, "frombuffer"))
            edits.append(Edit(end + 1, end + 1, ".copy()"))
    return edits


def aliases(text: str) -> list[Edit]:
    return [replace_group(m, 1, m.group(2)) for m in _ALIAS.finditer(_blank(text))]


def _blank(text: str) -> str:
    return _PARTS.sub(lambda match: re.sub(r"[^\r\n]", " ", match.group()), text)


def _closing(code: str, start: int) -> int:
    """The bracket that closes the one before `start`; 0 where there is none."""
    depth = 1
    for place in range(start, len(code)):
        depth += (code[place] in "([{") - (code[place] in ")]}")
        if not depth:
            return place
    return 0


_FILES = (".py",)
MENDS = (
    Mend(
        "skimage-as-gray",
        "scikit-image 0.16 has renamed imread's as_grey to as_gray",
        _FILES,
        as_grey,
    ),
    Mend(
        "numpy-byte-strings",
        "NumPy 2.3 has no tostring, and no fromstring of bytes: tobytes and frombuffer",
        _FILES,
        byte_strings,
    ),
    Mend(
        "numpy-aliases",
        "NumPy 1.24 has no np.float, np.int, np.bool and np.object: Python's own take their place",
        _FILES,
        aliases,
    ),
)
