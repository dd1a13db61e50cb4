"""Layers that multiply all of a blob by one number, and those that learn it."""

from __future__ import annotations

import numpy as np


def constant(net, layer) -> float | None:
    """What a layer multiplies its bottom by, always; None where it is no such layer."""
    message = layer.message
    if len(message.bottom) != 1 or len(message.top) != 1:
        return None
    if layer.type == "Power":
        given = message.power_param
        return given.scale if given.power == 1 and given.shift == 0 else None
    if layer.type != "Scale":
        return None
    given = message.scale_param
    blobs = 2 if given.bias_term else 1
    if len(message.param) < blobs or any(spec.lr_mult for spec in message.param[:blobs]):
        return None
    values = [_filled(given.filler) if given.HasField("filler") else 1.0]
    if given.bias_term:
        values.append(_filled(given.bias_filler) if given.HasField("bias_filler") else 0.0)
    stored = net.models.get(layer.name)
    if stored:
        values = [_uniform(blob) for blob in stored]
    if None in values or values[1:] not in ([], [0.0]):
        return None
    return clamped(values[0], given)


def learns(layer) -> bool:
    """Whether it is a Scale with a factor of its own that a solver, or a model, may change."""
    return layer.type == "Scale" and len(layer.message.bottom) == 1


def clamped(value: float, given) -> float:
    """A factor as the forks' min_value and max_value leave it."""
    if given.HasField("min_value"):
        value = max(value, given.min_value)
    if given.HasField("max_value"):
        value = min(value, given.max_value)
    return value


def clamps(given) -> bool:
    return given.HasField("min_value") or given.HasField("max_value")


def _filled(filler) -> float | None:
    return filler.value if (filler.type or "constant") == "constant" else None


def _uniform(blob) -> float | None:
    values = np.unique(np.asarray(blob))
    return float(values[0]) if len(values) == 1 else None


def without_clamp(net, layer) -> None:
    given = layer.message.scale_param
    if clamps(given):
        given.ClearField("min_value")
        given.ClearField("max_value")
        net.touch(layer)
        net.changed(
            layer, "Scale with min_value or max_value", "Scale", "learned, without the clamp"
        )
