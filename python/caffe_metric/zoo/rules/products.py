"""MarginInnerProduct in the place of a product with unit rows, and its weights."""

from __future__ import annotations

import numpy as np

from caffe_metric.zoo import weights


def words_of(layer) -> str:
    """What the report calls a product with unit rows."""
    return layer.type if layer.type == "CenterProjection" else "InnerProduct { normalize }"


def margin_product(net, product, given, bottom, label, top, folded=(), **parameters):
    message = product.message
    made = net.new_layer(message.name, "MarginInnerProduct", [bottom, label], [top], message)
    passes = [flag for layer in [product, *folded] for flag in layer.message.propagate_down[:1]]
    if passes:
        made.propagate_down.extend([all(passes), False])
    made.param.extend(message.param[:1])
    param = made.margin_inner_product_param
    param.num_output = given.num_output
    if given.HasField("weight_filler"):
        param.weight_filler.CopyFrom(given.weight_filler)
        if given.weight_filler.type == "gaussian_unitball":
            param.weight_filler.Clear()
            param.weight_filler.type, param.weight_filler.std = "gaussian", 1
    if given.HasField("axis"):
        param.axis = given.axis
    for name, value in parameters.items():
        setattr(param, name, value)
    return made


def carry(net, product, made) -> None:
    """The weights, and MarginInnerProduct's iteration count beside them."""
    given = made.margin_inner_product_param
    count, t = given.num_output, np.array([given.iteration], np.float32)
    net.weights[made.name] = product.name, lambda blobs: [weights.rows(blobs[0], count), t]
