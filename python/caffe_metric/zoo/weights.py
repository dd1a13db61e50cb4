"""A model of the old net for the new one."""

from __future__ import annotations

import numpy as np

from caffe_metric.support.errors import UserError


def converted(models, net, path: str) -> dict[str, list[np.ndarray]]:
    """{layer: blobs} for the new net. models: the old ones. Raises UserError."""
    gone = _names(net, old=True) - _names(net, old=False)
    out = {name: blobs for name, blobs in models.items() if name not in gone}
    for name, (source, change) in net.weights.items():
        if source not in models:
            out.pop(name, None)
            continue
        try:
            out[name] = [np.asarray(blob, np.float32) for blob in change(models[source])]
        except (ValueError, IndexError) as error:
            raise UserError(f"{path}: layer '{source}': {error}") from error
    return out


def _names(net, old: bool) -> set[str]:
    if old:
        return {layer.entry.text("name") for layer in net.document.layers}
    return {
        message.name
        for layer in net.layers
        for message in (layer.now if layer.now is not None else [layer.message])
    }


def rows(blob, count: int) -> np.ndarray:
    """Weights as count x K, whatever shape an old model gives them."""
    return np.reshape(blob, (count, -1))
