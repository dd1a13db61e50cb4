"""What would fail in a net, or train wrongly, before Caffe aborts."""

from __future__ import annotations

import re

from caffe_metric.lint import models, ours, view, wiring
from caffe_metric.lint.view import Finding
from caffe_metric.nets import netfile, netschema
from caffe_metric.support import child
from caffe_metric.support.strings import without_prefix


def check(path: str, weights: str | None = None, build: bool = False) -> list[Finding]:
    """All findings of a net file, in the order of the file. UserError where it cannot be read."""
    netfile.quiet_caffe()
    known = netschema.load()
    text = netfile.read_text(path)
    net = netfile.read(path, text, old=True)
    if net.layers:
        return [
            Finding(
                "warning",
                "an old net (`layers`), which Caffe upgrades as it loads it: run "
                "upgrade_net_proto_text, then lint the result",
            )
        ]
    layers = list(net.layer)
    if not layers:
        return [Finding("error", "has no layers")]
    lines = dict(zip(map(id, layers), layer_lines(text)))
    findings = []
    if netfile.is_marked(path):
        findings.append(
            Finding(
                "error",
                "begins with a byte order mark, on which Caffe aborts: save it as UTF-8 without",
            )
        )
    for phase in view.PHASES:
        seen = view.of_phase(net, layers, phase, lines, known.layer_types)
        for layer in seen.walk():
            wiring.check(seen, layer)
            ours.check(seen, layer)
        findings += [found for found in seen.findings if not _repeats(found, findings)]
    if weights:
        findings += models.check(net, layers, lines, weights)
    if build and not any(found.severity == "error" for found in findings):
        findings += _build(path)
    return sorted(findings, key=lambda found: found.line)


def _repeats(found: Finding, findings: list[Finding]) -> bool:
    """Whether the other phase said so already."""
    plain = without_prefix(found.message, "TEST: ")
    return any(
        (other.line, other.layer, without_prefix(other.message, "TRAIN: "))
        == (found.line, found.layer, plain)
        for other in findings
    )


def layer_lines(text: str) -> list[int]:
    """The line that each top-level `layer` begins in."""
    lines, depth, word = [], 0, ""
    token = re.compile(r"#[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|[{}<>]|\w+")
    for match in token.finditer(text):
        found = match.group()
        if found in "{<":
            if depth == 0 and word == "layer":
                lines.append(text.count("\n", 0, match.start()) + 1)
            depth += 1
        elif found in "}>":
            depth -= 1
        elif found[0] not in "#\"'":
            word = found
    return lines


def _build(path: str) -> list[Finding]:
    """What Caffe says when it sets the net up."""
    import caffe

    netfile.find_python_layers(path)
    found = []
    for number, phase in enumerate(view.PHASES):
        outcome = child.run(lambda number=number: caffe.Net(path, number) and None, timeout=600)
        if not outcome.ok:
            words = " ".join(outcome.last_words.split())
            found.append(Finding("error", f"{phase}: Caffe itself says: {words}"))
    return found
