"""Prototxts, read: one place for nets and solvers, whatever Caffe is at hand."""

from __future__ import annotations

import codecs
import os
import re
import sys
from pathlib import Path

from caffe_metric.nets import netschema
from caffe_metric.support.errors import UserError


def quiet_caffe() -> None:
    """Caffe's log without INFO and WARNING. Works before the first import of caffe only."""
    os.environ.setdefault("GLOG_minloglevel", "2")


def find_python_layers(path: str) -> None:
    """Modules of Python layers are looked up in the working folder and beside the net, too."""
    for folder in (str(Path.cwd()), str(Path(path).resolve().parent)):
        if folder not in sys.path:
            sys.path.append(folder)


UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def is_marked(path: str) -> bool:
    """Whether a file begins with a byte order mark, which Caffe's own parser refuses."""
    with Path(path).open("rb") as file:
        return file.read(3).startswith((*UTF16, codecs.BOM_UTF8))


def read_text(path: str) -> str:
    """The text of a prototxt, with or without a byte order mark; UserError where there is none.

    Bytes that are no UTF-8 are carried as surrogates: Caffe passes over them in comments, too.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    if data.startswith(UTF16):
        return data.decode("utf-16", errors="replace")
    if b"\0" in data:
        raise UserError(f"{path}: not a text file")
    return data.decode("utf-8-sig", errors="surrogateescape")


def parse(path: str, message, text: str | None = None, complete: bool = True):
    """Fills a message from a prototxt, or from the text that was read of it; returns the message.

    complete: whether a field that the message does not know is a mistake. Raises UserError, with
    the line.
    """
    from google.protobuf import text_format

    text = read_text(path) if text is None else text
    try:
        return text_format.Parse(text, message, allow_unknown_field=not complete)
    except (text_format.ParseError, UnicodeError) as error:
        raise UserError(f"{path}:{' '.join(str(error).split())}") from error


def read(path: str, text: str | None = None, old: bool = False):
    """The NetParameter of a prototxt, with the schema of netschema.load().

    old: whether a net of `layers`, as Caffe had them until 2014, is taken. Raises UserError.
    """
    text = read_text(path) if text is None else text
    known = netschema.load()
    try:
        net = parse(path, known.net(), text, known.complete)
    except UserError as error:
        if re.search(r"^\s*(base_lr|lr_policy|train_net|net)\s*:", text, re.MULTILINE):
            raise UserError(f"{error}; this looks like a solver: name its net") from error
        raise
    if net.layers and not old:
        raise UserError(f"{path}: an old net (`layers`): run Caffe's upgrade_net_proto_text first")
    return net
