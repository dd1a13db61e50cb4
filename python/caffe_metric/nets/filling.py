"""Weights into a net, and no layer left to chance: Caffe passes over what a model lacks."""

from __future__ import annotations

import numpy as np

from caffe_metric.nets import learning
from caffe_metric.support.errors import UserError


def overview(layers, stored, path) -> list[str]:
    """Which layers of a net a model fills, which start anew, what of it is left over: a line each.

    layers: LayerParameters. stored: names of the layers whose weights the model at `path` holds.
    """
    learned = dict.fromkeys(layer.name for layer in layers if learning.blob_count(layer))
    filled = [name for name in learned if name in stored]
    anew = [name for name in learned if name not in stored]
    unused = [name for name in stored if name not in {layer.name for layer in layers}]
    lines = [
        (f"{path} fills", filled),
        ("start anew", anew),
        (f"{path} also holds, for no layer of the net", unused),
    ]
    return [f"{what}: {_listed(names)}" for what, names in lines if names]


def _listed(names, most=12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def fill(net, weights) -> None:
    """Loads a model into a caffe.Net. Raises UserError where a layer's weights are not in it.

    For a net that is to be used as it is: a layer that the model lacks would keep the random
    numbers of its filler.
    """
    for blobs in net.params.values():
        for blob in blobs:
            blob.data[...] = np.nan
    net.copy_from(str(weights))
    empty = [
        name for name, blobs in net.params.items() if all(np.isnan(b.data).all() for b in blobs)
    ]
    if empty:
        raise UserError(
            f"{weights}: holds no weights of layer {_listed(empty)}: names must be equal"
        )
