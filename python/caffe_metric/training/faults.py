"""Where a number that is not finite arose in a net."""

from __future__ import annotations

import numpy as np

from caffe_metric.support.errors import UserError


class NotFinite(UserError):
    """A training has to stop: the message names the layer and the blob."""


def is_finite(array) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        # A sum is fast, and not finite where a number is not; it may overflow, too.
        return bool(np.isfinite(np.sum(array))) or bool(np.isfinite(array).all())


def locate(net, upto=None) -> str:
    """Names the first layer, up to number `upto`, whose weights or tops are not finite.

    Layers are run again one by one, because layers in place overwrite what others gave; the layers
    that read data are not.
    """
    names = list(net._layer_names)
    for place, name in enumerate(names[: None if upto is None else upto + 1]):
        layer, tops = net.layers[place], list(net._top_ids(place))
        for number, blob in enumerate(layer.blobs):
            if not is_finite(blob.data):
                return f"blob {number} (weights) of layer '{name}' ({layer.type}) {_what(blob)}"
        if len(net._bottom_ids(place)) and place != upto:
            net._forward(place, place)
        for top in tops if place != upto else []:
            if not is_finite(net._blobs[top].data):
                what = _what(net._blobs[top])
                return f"top '{net._blob_names[top]}' of layer '{name}' ({layer.type}) {what}"
    return "the loss is not finite, but no blob of the net tells where that arose"


def _what(blob):
    data = blob.data
    bad = np.flatnonzero(~np.isfinite(data).ravel())
    return f"holds {data.flat[bad[0]]}, first at index {bad[0]} ({len(bad)} of {data.size} numbers)"
