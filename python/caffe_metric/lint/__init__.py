"""What would fail in a net, or train wrongly, before Caffe aborts."""

from __future__ import annotations

import re

from caffe_metric.lint import data, models, ours, view, wiring
from caffe_metric.lint.view import Finding
from caffe_metric.nets import batch_norm, netfile, netschema, phases, prototxt, roles
from caffe_metric.support import child


def check(
    path: str, weights: str | None = None, build: bool = False, max_iter: int | None = None
) -> list[Finding]:
    """All findings of a net file, in the order of the file. UserError where it cannot be read.

    max_iter: of the solver that will train it, where that is known.
    """
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
    findings += _averages(layers, lines, max_iter)
    findings += _batch_counts(layers, lines)
    if weights:
        findings += models.check(net, layers, lines, weights)
    if build and not any(found.severity == "error" for found in findings):
        findings += _build(path, view.states(net, layers))
    return sorted(findings, key=lambda found: found.line)


def _averages(layers, lines, max_iter) -> list[Finding]:
    """BatchNorm's: without a solver only Caffe's default is worth a word."""
    kept = [layer for layer in batch_norm.averages(layers) if phases.included(layer, phases.TRAIN)]
    if max_iter is None:
        kept = [one for one in kept if not one.batch_norm_param.HasField("moving_average_fraction")]
    text = batch_norm.complaint(kept, max_iter or 10_000 - 1)
    if not kept or not text:
        return []
    if max_iter is None:
        text = (
            "BatchNorm averages over its last 1000 iterations (moving_average_fraction: 0.999, "
            "Caffe's default): a training of less than 10000 is tested with what the net was "
            "before; --solver tells how long it is; docs/training.md"
        )
    return [Finding("warning", text, lines.get(id(kept[0]), 0), kept[0].name)]


def _batch_counts(layers, lines) -> list[Finding]:
    """IdentityData's blob: Caffe aborts where a layer of its name has none, and learns it."""
    found = []
    for layer in filter(roles.counts_batches, layers):
        place = lines.get(id(layer), 0), layer.name
        if any(other.name == layer.name and not roles.counts_batches(other) for other in layers):
            text = (
                "keeps the number of its batch in a blob, another layer of its name has none: "
                "Caffe aborts; give one another name, or this one persist_iteration: false"
            )
            found.append(Finding("error", text, *place))
        elif not layer.param or layer.param[0].lr_mult:
            text = (
                "keeps the number of its batch in a blob: needs param { lr_mult: 0 decay_mult: 0 } "
                "under `caffe train`, which else decays the number, or does without the blob"
            )
            found.append(Finding("warning", text, *place))
    return found


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
    try:
        entries = prototxt.parse(text)
    except prototxt.SyntaxFault:  # a spelling that protobuf takes and prototxt.py does not
        return []
    return [entry.line for entry in entries if entry.name in ("layer", "layers")]


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
