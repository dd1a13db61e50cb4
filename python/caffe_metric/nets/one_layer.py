"""One layer alone: its prototxt, in C++ or as a Python layer, and a net of it and its inputs."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from caffe_metric import suite
from caffe_metric.nets import param_str, schema

CPP, PYTHON, NUMPY = ENGINES = ("cpp", "python", "numpy")
WIDTH, HEAD_WIDTH = 96, 78  # of a line, of the one with bottoms and tops


def layer(
    kind: str,
    bottoms,
    tops,
    parameters=None,
    *,
    name: str = "layer",
    engine: str = CPP,
    normalization: str | None = None,
    loss_weight: float | None = None,
    extra: str = "",
) -> str:
    """The prototxt of a layer of the suite.

    parameters: {field of its message: value}, a dictionary for a message of Caffe's, such as a
    filler. engine: "python" and "numpy" make it a Python layer, "numpy" without the compiled rules.
    loss_weight: of the first top; a Python layer that is a loss has 1 where none is given.
    """
    row, parameters = suite.find(kind), dict(parameters or {})
    python = engine != CPP
    head = f'name: "{name}" type: "{"Python" if python else kind}" ' + _each("bottom", bottoms)
    whole = f"{head} {_each('top', tops)}"
    lines = [whole] if len(whole) <= HEAD_WIDTH else [head, _each("top", tops)]
    if loss_weight is None and python and row.loss:
        loss_weight = 1
    if loss_weight is not None:
        weights = [f"{loss_weight:g}"] + ["0"] * (len(tops) - 1)
        lines.append(" ".join(f"loss_weight: {weight}" for weight in weights))
    if python:
        given = {**parameters, **({"normalization": normalization} if normalization else {})}
        if engine == NUMPY:
            given["backend"] = "numpy"
        lines += _python_param(row.python_class, given)
    else:
        if parameters:
            for field, part in _by_field(row, parameters).items():
                lines += _block(field, _words(part))
        if normalization:
            lines.append(f"loss_param {{ normalization: {normalization} }}")
    return "layer {\n  " + "\n  ".join(line for line in [*lines, extra] if line) + "\n}\n"


def inputs(bottoms) -> str:
    """Input layers for arrays by name."""
    text = ""
    for name, value in bottoms.items():
        dims = " ".join(f"dim: {size}" for size in np.shape(value))
        text += (
            f'layer {{ name: "input of {name}" type: "Input" top: "{name}" '
            f"input_param {{ shape {{ {dims} }} }} }}\n"
        )
    return text


def build(text: str, phase: int = 0):
    """The caffe.Net of a prototxt's text; phase 0 is TRAIN."""
    import caffe

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.prototxt"
        path.write_text(text, encoding="utf-8")
        return caffe.Net(str(path), phase)


def _by_field(row: suite.Layer, parameters) -> dict[str, dict]:
    """The parameters by the field of LayerParameter that they stand in; unknown ones in its own."""
    parts: dict[str, dict] = {row.field: {}}
    places = {
        known.name: field
        for field, message in row.messages.items()
        for known in schema.message(message).fields
    }
    for name, value in parameters.items():
        parts.setdefault(places.get(name, row.field), {})[name] = value
    return {field: part for field, part in parts.items() if part}


def _each(word: str, names) -> str:
    return " ".join(f'{word}: "{name}"' for name in names)


def _block(name: str, words: list[str]) -> list[str]:
    """A message on one line, or on several where that is too long."""
    whole = f"{name} {{ {' '.join(words)} }}"
    if len(whole) + 2 <= WIDTH:
        return [whole]
    lines, line = [f"{name} {{"], ""
    for word in words:
        if len(line) + len(word) + 5 > WIDTH:
            lines.append(f"  {line}")
            line = ""
        line = f"{line} {word}".strip()
    return [*lines, f"  {line}", "}"]


def _python_param(name: str, parameters) -> list[str]:
    head = f'module: "caffe_metric.layers" layer: "{name}"'
    if not parameters:
        return [f"python_param {{ {head} }}"]
    return ["python_param {", f"  {head}", f'  param_str: "{param_str.written(parameters)}"', "}"]


def _words(parameters) -> list[str]:
    return [
        f"{key} {{ {' '.join(_words(value))} }}"
        if isinstance(value, dict)
        else f"{key}: {_proto(value)}"
        for key, value in parameters.items()
    ]


def _proto(value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    # Names of enums are capitals; a filler's type is a string.
    return f'"{value}"' if isinstance(value, str) and not value.isupper() else str(value)
