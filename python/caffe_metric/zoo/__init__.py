"""Nets of other forks of Caffe, read as they are written, and rewritten for this suite."""

from __future__ import annotations

from dataclasses import dataclass

from caffe_metric.nets import netfile
from caffe_metric.zoo import rules, weights
from caffe_metric.zoo.document import Document
from caffe_metric.zoo.net import Net
from caffe_metric.zoo.report import CHANGED, REFUSED, Line

__all__ = ["CHANGED", "REFUSED", "Line", "Modernized", "converted", "decoded", "modernize"]


@dataclass(frozen=True)
class Modernized:
    """text: the new net. report: a line a change, in the order of the old net."""

    text: str
    report: list[Line]
    net: Net

    @property
    def whole(self) -> bool:
        """Whether nothing had to be left as it was."""
        return not any(line.verdict == REFUSED for line in self.report)


def modernize(path: str, text: str, models=None) -> Modernized:
    """A net's text, rewritten. models: {layer: blobs} of its weights. Raises UserError."""
    netfile.quiet_caffe()
    net = Net(Document(path, text), models)
    rules.apply(net)
    report = sorted(net.lines, key=lambda line: line.line)
    return Modernized(net.document.written(), report, net)


def converted(done: Modernized, path: str) -> dict:
    """{layer: blobs} of the new net's model. path: of the old model, for errors."""
    return weights.converted(done.net.models, done.net, path)


def decoded(text: str) -> tuple[str, str]:
    """The text of a net, and the encoding to write it with again.

    text: as netfile.read_text gives it, bytes that are no UTF-8 as surrogates. Chinese comments of
    those years are GBK; any other bytes are letters of Latin-1.
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
