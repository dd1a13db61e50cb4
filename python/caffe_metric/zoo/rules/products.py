"""MarginInnerProduct in the place of a product with unit rows, and its weights."""

from __future__ import annotations

import numpy as np

from caffe_metric.zoo import weights


def words_of(layer) -> str:
    """What the report calls a product with unit rows."""
    return layer.type if layer.type == "CenterProjection" else "InnerProduct { normalize }"


def margin_product(net, product, given, bottom, label, top, folded=(), **parameters):
    """The new layer. given: the product's own parameters. folded: layers that it stands for."""
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


def carry(net, source: str, made, counted: bool = True) -> None:
    """The weights, and the iteration count beside them.

    source: the layer of the old model. counted: whether that may have a count of its own.
    """
    given = made.margin_inner_product_param

    def blobs_of(blobs):
        rows = weights.rows(blobs[0], given.num_output)
        if not given.persist_iteration:
            return [rows]
        count = blobs[1:2] if counted else []
        return [rows, *(count or [np.array([given.iteration], np.float32)])]

    net.weights[made.name] = source, blobs_of


def twins(net) -> None:
    """A stock InnerProduct of the same name, in another net of the file, has one blob: so has ours.

    Caffe aborts where the layers of a name, of TRAIN and of TEST, differ in their number of blobs.
    """
    messages = [
        (layer, message) for layer in net.layers for message in layer.now or [layer.message]
    ]
    stock = {message.name for _, message in messages if message.type == "InnerProduct"}
    for layer, message in messages:
        given = message.margin_inner_product_param
        if (
            message.type == "MarginInnerProduct"
            and message.name in stock
            and given.persist_iteration
        ):
            given.persist_iteration = False
            net.touch(layer)
            net.changed(
                layer,
                "MarginInnerProduct",
                "with persist_iteration false",
                f"an InnerProduct is named '{message.name}', too, and has one blob",
            )
