"""Where Caffe runs backward: only where something below it is learned."""

from __future__ import annotations

from caffe_metric.nets import roles

# Blobs that the solver may learn, by type of Caffe's own layers. Net::Init asks the prototxt for
# each one's lr_mult, and takes 1 where it says nothing, whatever the layer says of its blobs.
BLOBS = {
    "BatchNorm": 3,
    "Bias": 1,
    "Convolution": 2,
    "Deconvolution": 2,
    "Embed": 2,
    "InnerProduct": 2,
    "LSTM": 3,
    "PReLU": 1,
    "RNN": 5,
    "Scale": 2,
}
_BIASED = {
    "Convolution": "convolution_param",
    "Deconvolution": "convolution_param",
    "Embed": "embed_param",
    "InnerProduct": "inner_product_param",
    "Scale": "scale_param",
}


def rates(layer) -> list[float]:
    """lr_mult of each blob, as Caffe decides by it whether a layer is learned."""
    given = [spec.lr_mult for spec in layer.param]
    count = blob_count(layer)
    return (given + [1.0] * count)[:count]


def blob_count(layer) -> int:
    """How many blobs a layer has; of a Python layer that is not ours, at least as many."""
    name = roles.kind(layer)
    row = roles.row_of(layer)
    if row is not None:
        return row.blobs(roles.settings(layer)) if row.field else 0
    if name == "Python":
        return max(1, len(layer.param))  # it may have weights
    count = BLOBS.get(name, 0)
    # A part of Caffe's schema may lack the field.
    biased = getattr(getattr(layer, _BIASED.get(name, ""), None), "bias_term", True)
    return count if biased else count - 1


def reaches(layer, learned: dict[str, bool]) -> bool:
    """Whether the backward pass has work in a layer.

    learned: {blob: whether something below it is learned}.
    """
    try:
        own = any(rates(layer))
    except ValueError:  # a param_str that cannot be read
        own = True
    asked = list(layer.propagate_down) or [True] * len(layer.bottom)
    below = [learned.get(bottom, False) and ask for bottom, ask in zip(layer.bottom, asked)]
    return own or any(below)
