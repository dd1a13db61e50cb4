"""Known breaks of older Caffe trees with current compilers and libraries.

A mend looks for its break in a tree and edits only where it finds it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from caffe_metric.patch import cpp
from caffe_metric.patch.text import Edit


@dataclass(frozen=True)
class Mend:
    """edits(path, text) gives the edits of one file; [] where it has not the break."""

    name: str
    reason: str
    suffixes: tuple[str, ...]
    edits: Callable[[str, str], list[Edit]]


def _bytes_limit(path: str, text: str) -> list[Edit]:
    if "SetTotalBytesLimit" not in text:
        return []
    call = re.compile(r"\bSetTotalBytesLimit\s*\(([^,();]+)(,[^,();]+)\)")
    return [Edit(m.start(2), m.end(2), "") for m in call.finditer(cpp.blank(text))]


MENDS = (
    Mend(
        "protobuf-bytes-limit",
        "SetTotalBytesLimit takes one argument since protobuf 3.20",
        (".cpp", ".hpp", ".cu"),
        _bytes_limit,
    ),
)
