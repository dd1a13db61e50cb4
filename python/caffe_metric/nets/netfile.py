"""Prototxts, read: one place for nets and solvers, whatever Caffe is at hand."""

from __future__ import annotations

import codecs
import os
import re
import sys
from pathlib import Path

from caffe_metric.nets import netschema, prototxt, upgrade
from caffe_metric.support.errors import ForeignNetError, UserError


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
        return text_format.Parse(text if complete else known_fields(text, message), message)
    except (text_format.ParseError, UnicodeError) as error:
        raise UserError(f"{path}:{' '.join(str(error).split())}") from error


def known_fields(text: str, message) -> str:
    """The text with blanks where it has fields that the message has not; its lines stay.

    What protobuf's allow_unknown_field is for, which protobuf 3.6 has not.
    """
    blanks = []

    def collect(entries, descriptor):
        for entry in entries:
            field = descriptor.fields_by_name.get(entry.name)
            if field is None:
                separator = re.compile(r"\s*[,;]").match(text, entry.end)
                blanks.append((entry.start, separator.end() if separator else entry.end))
            elif field.message_type is not None:
                collect(entry.fields or (), field.message_type)

    try:
        collect(prototxt.parse(text), message.DESCRIPTOR)
    except prototxt.SyntaxFault:  # of which the parser tells
        return text
    for start, end in blanks:
        text = text[:start] + re.sub(r"[^\n]", " ", text[start:end]) + text[end:]
    return text


def read(path: str, text: str | None = None, any_type: bool = False):
    """The NetParameter of a prototxt, with the schema of netschema.load().

    An old net (`layers`) is read as today's, as Caffe does. any_type: whether layers that only
    another fork has are taken, too. Raises UserError, ForeignNetError for the words of a fork.
    """
    text = decoded(read_text(path) if text is None else text)[0]
    known = netschema.load()
    try:
        net = parse(path, known.net(), upgraded(path, text), known.complete)
    except UserError as error:
        _refuse_foreign(path, text)
        if re.search(r"^\s*(base_lr|lr_policy|train_net|net)\s*:", text, re.MULTILINE):
            raise UserError(f"{error}; this looks like a solver: name its net") from error
        raise
    if not any_type:
        _refuse_foreign(path, text)
    return net


def upgraded(path: str, text: str) -> str:
    """The text of a net, with an old one's `layers` in today's words. Raises UserError."""
    if "layers" not in text:
        return text
    try:
        return upgrade.upgraded(text)
    except prototxt.SyntaxFault as error:
        raise UserError(f"{path}:{error.line}: {error}") from error


def decoded(text: str) -> tuple[str, str]:
    """The text of a net, and the encoding to write it with again.

    text: as read_text gives it, bytes that are no UTF-8 as surrogates. Chinese comments of those
    years are GBK; any other bytes are letters of Latin-1.
    """
    try:
        text.encode("utf-8")
        return text, "utf-8"
    except UnicodeEncodeError:
        data = text.encode("utf-8", "surrogateescape")
    for encoding in ("gb18030", "latin-1"):
        try:
            return data.decode(encoding), encoding
        except UnicodeDecodeError:
            continue
    raise AssertionError("latin-1 decodes all")


def _refuse_foreign(path, text) -> None:
    from caffe_metric.zoo import recognition

    found = recognition.foreign(text)
    if found:
        raise ForeignNetError(
            f"{path}:{found} of another fork of Caffe: `caffe-metric modernize {path} -o NEW` "
            "reads it"
        )
