"""Nets of other forks of Caffe, read as they are written, and rewritten for this suite."""

from __future__ import annotations

from dataclasses import dataclass

from caffe_metric.nets import netfile
from caffe_metric.zoo import rules, weights
from caffe_metric.zoo.document import Document
from caffe_metric.zoo.net import Net
from caffe_metric.zoo.report import CHANGED, REFUSED, Line

__all__ = ["CHANGED", "REFUSED", "Line", "Modernized", "converted", "modernize"]


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
