"""Changes as a unified diff that `patch -p1` and `git apply` understand."""

from __future__ import annotations

import difflib

from caffe_metric.patch.text import decode, encode, lines_of


def unified(path: str, before: bytes | None, after: bytes | None) -> bytes:
    """The diff of one file; None stands for no file."""
    old, new = lines_of(decode(before or b"")), lines_of(decode(after or b""))
    lines = difflib.unified_diff(
        old,
        new,
        "/dev/null" if before is None else f"a/{path}",
        "/dev/null" if after is None else f"b/{path}",
    )
    text = "".join(
        line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in lines
    )
    return encode(text)
