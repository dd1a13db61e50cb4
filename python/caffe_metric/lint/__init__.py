"""What would fail in a net, or train wrongly, before Caffe aborts."""

from __future__ import annotations

import re

from caffe_metric.lint import data, models, ours, view, wiring
from caffe_metric.lint.view import Finding
from caffe_metric.nets import netfile, netschema, prototxt
from caffe_metric.support import child


def check(path: str, weights: str | None = None, build: bool = False) -> list[Finding]:
    """All findings of a net file, in the order of the file. UserError where it cannot be read."""
    netfile.quiet_caffe()
    known = netschema.load()
    text = netfile.read_text(path)
    net = netfile.read(path, text, any_type=True)
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
    for state in view.states(net, layers):
        seen = view.of_state(net, layers, state, lines, known.layer_types)
        for layer in seen.walk():
            wiring.check(seen, layer)
            ours.check(seen, layer)
            data.check(seen, layer)
        findings += [found for found in seen.findings if not _repeats(found, findings)]
    if weights:
        findings += models.check(net, layers, lines, weights)
    if build and not any(found.severity == "error" for found in findings):
        findings += _build(path, view.states(net, layers))
    return sorted(findings, key=lambda found: found.line)


def _repeats(found: Finding, findings: list[Finding]) -> bool:
    """Whether another state's net said so already."""
    plain = _without_state(found.message)
    return any(
        (other.line, other.layer, _without_state(other.message)) == (found.line, found.layer, plain)
        for other in findings
    )


def _without_state(message: str) -> str:
    return re.sub(r"^(TRAIN|TEST)\b[^:]*: ", "", message)


def layer_lines(text: str) -> list[int]:
    """The line that each top-level `layer`, or `layers`, begins in."""
    return [entry.line for entry in prototxt.parse(text) if entry.name in ("layer", "layers")]


def _build(path: str, states) -> list[Finding]:
    """What Caffe says when it sets the nets up."""
    import caffe

    netfile.find_python_layers(path)
    found = []
    for state in states:
        how = {"level": state.level, "stages": sorted(state.stages)}
        outcome = child.run(
            lambda state=state, how=how: caffe.Net(path, state.phase, **how) and None, timeout=600
        )
        if not outcome.ok:
            words = " ".join(outcome.last_words.split())
            found.append(Finding("error", f"{state}: Caffe itself says: {words}"))
    return found
