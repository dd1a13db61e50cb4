"""Classifiers with unit weights: InnerProduct { normalize }, or CenterProjection, with what stands
around it, becomes MarginInnerProduct.

Without a margin it is replaced by itself, below; with one, see margin_rows.py.
"""

from __future__ import annotations

import numpy as np

from caffe_metric.zoo import weights
from caffe_metric.zoo.rules import around, margin_rows
from caffe_metric.zoo.rules.margins import Refused
from caffe_metric.zoo.rules.products import carry, margin_product, words_of
from caffe_metric.zoo.rules.scales import without_clamp


def is_product(layer) -> bool:
    """Whether a layer is a product with unit rows of weights, in some fork's words."""
    return layer.type == "CenterProjection" or (
        layer.type == "InnerProduct" and layer.message.inner_product_param.normalize
    )


def rewrite(net, layer) -> None:
    """A layer that is_product."""
    try:
        _rewrite(net, layer)
    except Refused as error:
        net.refuse(layer, words_of(layer), str(error))


def _rewrite(net, product) -> None:
    message = product.message
    projection = product.type == "CenterProjection"
    given = message.center_projection_param if projection else message.inner_product_param
    if len(message.bottom) != 1:
        raise Refused(f"has {len(message.bottom)} bottoms: weights that are a blob of the net")
    if given.transpose:
        raise Refused("transpose: the rows that the published code divides are no classes then")
    rows = [around.row_after(net, one, product) for one in net.graph.having(product)]
    margin = around.the_one(
        "margin", [row.margin for row in rows if row.net.train] or [row.margin for row in rows]
    )
    channel = around.the_one(
        "ChannelScale", [row.channel for row in rows if row.channel or not around.order_only(row)]
    )
    label = around.label_of(net, product, rows, margin)
    before = around.before(net, product)
    if margin is None and channel is None:
        _plain(net, product, given, rows, before, label, projection)
        return
    if given.bias_term:
        raise Refused("has a bias: a margin needs the cosine alone (bias_term: false)")
    around.check_channel(net, channel, before)
    margin_rows.rewrite(net, product, given, rows, label, margin, channel, before, projection)


def _plain(net, product, given, rows, before, label, projection) -> None:
    """Without a margin: type SINGLE. What stands around it stays."""
    for learned in [before.learned, *(row.learned for row in rows)]:
        if learned is not None:
            without_clamp(net, learned)
    if not label:
        _unlabelled(net, product, given, projection)
        return
    message, top = product.message, product.message.top[0]
    parameters = {"scale": given.scale} if projection and given.scale != 1 else {}
    product_top = net.free_name(f"{message.name}_product") if given.bias_term else top
    made = margin_product(net, product, given, message.bottom[0], label, product_top, **parameters)
    carry(net, product.name, made, counted=False)
    layers, words = [made], "MarginInnerProduct type SINGLE"
    if parameters:
        words += f" with scale {given.scale:g}"
    if given.bias_term:
        layers.append(_bias(net, product, given, product_top, top))
        words += ", and Bias"
    why = ["unit rows, the exact gradient: the published one leaves its radial part in"]
    net.changed(product, words_of(product), words, "; ".join(why))
    net.replace(product, layers)


def _bias(net, product, given, bottom, top):
    message = product.message
    name = net.free_name(f"{message.name}_bias")
    bias = net.new_layer(name, "Bias", [bottom], [top], message)
    bias.param.extend(message.param[1:2])
    bias.bias_param.axis = given.axis
    if given.HasField("bias_filler"):
        bias.bias_param.filler.CopyFrom(given.bias_filler)
    net.weights[name] = message.name, lambda blobs: [np.ravel(blobs[1])]
    return bias


def _unlabelled(net, product, given, projection) -> None:
    """A net without labels, for deployment: a stock product, whose stored rows are made unit."""
    if not net.models.get(product.name):
        raise Refused(
            "has no labels to read, as in a deploy net: a stock InnerProduct with unit "
            "rows takes its place, whose model is made by --weights"
        )
    scale = given.scale if projection else 1.0
    message = product.message
    made = net.new_layer(message.name, "InnerProduct", message.bottom, message.top, message)
    made.param.extend(message.param)
    param = made.inner_product_param
    for name in ("num_output", "bias_term", "axis"):
        if given.HasField(name):
            setattr(param, name, getattr(given, name))

    def unit(blobs):
        rows = weights.rows(blobs[0], given.num_output).astype(np.float64)
        norms_ = np.linalg.norm(rows, axis=-1, keepdims=True)
        return [
            (rows / np.where(norms_ > 0, norms_, 1) * scale).astype(np.float32),
            *map(np.ravel, blobs[1:]),
        ]

    net.weights[message.name] = message.name, unit
    net.changed(
        product,
        words_of(product),
        "InnerProduct",
        "no labels here: the rows of the new model are of unit length"
        + (f" times {scale:g}" if scale != 1 else ""),
    )
    net.replace(product, [made])
