"""Weights into a net, and no layer left to chance: Caffe passes over what a model lacks."""

from __future__ import annotations

import numpy as np

from caffe_metric.support.errors import UserError


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
        names = ", ".join(f"'{name}'" for name in empty[:5]) + ("" if len(empty) < 6 else " ...")
        raise UserError(f"{weights}: holds no weights of layer {names}: names must be equal")
