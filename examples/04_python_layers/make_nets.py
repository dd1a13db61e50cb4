"""Writes this folder's prototxts, of the nets and solvers of examples 01 to 03.

    .venv/bin/python examples/04_python_layers/make_nets.py

Works on the text, since an unpatched Caffe cannot parse those nets: each layer of a type of ours
becomes a Python layer, with its parameters as param_str; all else stays as it stands.
"""

from __future__ import annotations

import re
from pathlib import Path

from caffe_metric import suite

HERE = Path(__file__).resolve().parent
FOLDERS = {"triplet": "01_triplet", "rank_hard": "02_rank_hard", "margin": "03_margin"}


def python_net(text: str) -> str:
    """The net with Python layers in the place of ours."""
    head, *layers = re.split(r"(?m)^(?=layer \{)", text)
    head = re.sub(r"(?m)^# (.*)\.$", r"# \1, with Python layers.", head, count=1)
    return head + "".join(python_layer(layer) for layer in layers)


def python_solver(text: str, name: str) -> str:
    """The solver for this folder's net; its snapshots stand beside those of the demo."""
    text = text.replace(f"{FOLDERS[name]}/net.prototxt", f"04_python_layers/{name}.prototxt")
    return re.sub(r'snapshot_prefix: "build/demo/', 'snapshot_prefix: "build/demo/python/', text)


def python_layer(layer: str) -> str:
    """A layer, from `layer {` in column 0 to its closing brace."""
    kind = re.search(r'(?m)^  type: "(\w+)"', layer)[1]
    row = suite.find(kind)
    if row is None:
        return layer
    layer, param_str = cut_message(layer, row.field)
    layer = layer.replace(f'type: "{kind}"', 'type: "Python"')
    extra = "".join(
        f"  loss_weight: {int(number == 0)}\n"
        for number, _ in enumerate(re.findall(r"(?m)^  top:", layer))
        if row.loss and "loss_weight:" not in layer
    )
    # A Python layer cannot set the learning rate of its iteration count.
    if row.counts:
        params = len(re.findall(r"(?m)^  param \{", layer))
        extra += "  param { }\n" * (params == 0)
        extra += "  param { lr_mult: 0 decay_mult: 0 }\n" * (params < 2)
    extra += f'  python_param {{\n    module: "caffe_metric.layers"\n    layer: "{kind}Layer"\n'
    if param_str:
        extra += f'    param_str: "{{{param_str}}}"\n'
    return layer.rstrip()[:-1] + extra + "  }\n}\n"


def cut_message(layer: str, field: str) -> tuple[str, str]:
    """The layer without the message `field`, and the message's fields as YAML."""
    found = re.search(rf"(?m)^  {field} \{{", layer)
    if not found:
        return layer, ""
    depth, end = 1, found.end()
    while depth:
        depth += {"{": 1, "}": -1}.get(layer[end], 0)
        end += 1
    return layer[: found.start()] + layer[end:].lstrip("\n"), as_yaml(layer[found.end() : end - 1])


def as_yaml(fields: str) -> str:
    """`a: 1 b { c: "x" }` as `a: 1, b: {c: x}`."""
    parts = []
    for name, nested, value in re.findall(r'(\w+)\s*(?:\{([^{}]*)\}|:\s*"?([^\s"]+)"?)', fields):
        parts.append(f"{name}: {{{as_yaml(nested)}}}" if nested else f"{name}: {value}")
    return ", ".join(parts)


def main() -> None:
    for name, folder in FOLDERS.items():
        source = HERE.parent / folder
        net, solver = python_net((source / "net.prototxt").read_text()), source / "solver.prototxt"
        (HERE / f"{name}.prototxt").write_text(net)
        (HERE / f"{name}_solver.prototxt").write_text(python_solver(solver.read_text(), name))


if __name__ == "__main__":
    main()
