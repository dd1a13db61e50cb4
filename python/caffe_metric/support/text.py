"""Text files as editors write them: UTF-8, with or without a byte order mark, any line end.

A name of a file that is no UTF-8 (the system allows any bytes) is carried as Python does it, by
surrogates, and written back as the bytes it was.
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from caffe_metric.support.errors import UserError

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# str.splitlines() would also cut at what a name may hold.
_LINE_END = re.compile(r"\r\n|\r|\n")


def read_text(path) -> str:
    """The whole file. Raises UserError, with the line where a byte is no UTF-8."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    encoding = "utf-16" if data.startswith(_UTF16) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if b"\0" in data:
            raise UserError(f"{path}: not a text file") from error
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}:{line}: byte 0x{data[error.start]:02x} is no UTF-8; save the file as UTF-8"
        ) from error
    if "\0" in text:
        raise UserError(f"{path}: not a text file")
    return text


def read_lines(path) -> list[tuple[int, str]]:
    """(number, line) of each line that is not empty and no `#` comment, blanks at its ends off.

    Raises UserError for what read_text cannot read, and for a file without any such line.
    """
    lines = [
        (number, line.strip())
        for number, line in enumerate(_LINE_END.split(read_text(path)), 1)
        if line.strip() and not line.startswith("#")
    ]
    if not lines:
        raise UserError(f"{path}: empty")
    return lines


def write_text(path, text: str) -> None:
    """Writes UTF-8; names that are none, as the bytes they were."""
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        file.write(text)
