"""Whether a model's blobs fit a net: Caffe aborts where their number or shape differs."""

from __future__ import annotations

from caffe_metric.lint.view import Finding
from caffe_metric.nets import blobs, filling, learning, roles


def check(net, layers, lines, path: str) -> list[Finding]:
    """Findings for the layers that both the net and the model have."""
    stored = {name: shapes for name, shapes in blobs.shapes(path).items() if shapes}
    findings = []
    for layer in layers:
        row = roles.row_of(layer)
        if row is None or not row.counts or layer.name not in stored:
            continue
        shapes = stored[layer.name]
        given = roles.parameters(layer)
        try:
            wanted = learning.blob_count(layer)
        except ValueError:  # a bad parameter has a finding of its own
            continue
        message = ""
        if len(shapes) != wanted:
            message = (
                f"{path} holds {len(shapes)} blob(s) of it, the net {wanted} "
                f"(persist_iteration: {str(given.get('persist_iteration', True)).lower()}): Caffe "
                f"would abort. `caffe-metric weights {path} OUT --net NET` converts the model"
            )
        elif shapes[0][0] != given.get("num_output"):
            message = (
                f"{path} holds weights of {shapes[0][0]} classes, num_output is "
                f"{given.get('num_output')}: rename the layer to train its weights anew"
            )
        if message:
            findings.append(Finding("error", message, lines.get(id(layer), 0), layer.name))
    if not any(layer.name in stored for layer in layers):
        findings.append(
            Finding("warning", f"{path} holds weights of no layer of the net: names must be equal")
        )
    return [*findings, *(Finding("note", line) for line in filling.overview(layers, stored, path))]
