"""Layers of ours, written with those that every Caffe has, for deployment.

A step takes the layers of a net and gives them anew; what has to happen to the weights stands in
`Rewritten.weights`: {new layer: (old layer, function of its blobs)}.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from caffe_metric.nets.roles import kind, settings
from caffe_metric.support.errors import UserError

SUMSQ = 3  # caffe.ReductionParameter.ReductionOp


@dataclass
class Rewritten:
    """Layers of stock types, and where their weights come from."""

    layers: list
    weights: dict = field(default_factory=dict)


def to_stock(layers, shapes):
    """Replaces Norm and MarginInnerProduct, and leaves Dropout out.

    shapes: {blob: shape} in the old net. Raises UserError for a layer that has no stock equal.
    """
    out = Rewritten([])
    for layer in _without_dropout(layers):
        layer_kind = kind(layer)
        if layer_kind == "Norm":
            out.layers += norm_layers(layer, shapes[layer.bottom[0]])
        elif layer_kind == "MarginInnerProduct":
            _margin(layer, shapes[layer.bottom[0]], out)
        elif layer.type == "Python":
            raise UserError(f"layer '{layer.name}': a Python layer has no stock equal")
        else:
            out.layers.append(layer)
            out.weights[layer.name] = (layer.name, lambda blobs: blobs)
    return out


def _without_dropout(layers):
    """Dropout does nothing in phase TEST: later layers read what it read."""
    renamed, kept = {}, []
    for layer in layers:
        for number, bottom in enumerate(layer.bottom):
            layer.bottom[number] = renamed.get(bottom, bottom)
        if layer.type == "Dropout":
            if layer.top[0] != layer.bottom[0]:
                renamed[layer.top[0]] = layer.bottom[0]
            continue
        kept.append(layer)
    return kept


def norm_layers(layer, shape, bottom=None, top=None):
    """y = x / max(|x|, eps) as x * (sum of squares + eps^2) ^ -1/2.

    Of a row: Reduction, Power, Scale. Along the channels of an image: a LRN whose window covers
    all channels. Both differ from Norm only where |x| is near eps.
    """
    bottom, top = bottom or layer.bottom[0], top or layer.top[0]
    eps = settings(layer).eps if kind(layer) == "Norm" else 1e-10
    if len(shape) == 4:
        lrn = _new(layer, layer.name, "LRN", [bottom], [top])
        lrn.lrn_param.local_size = 2 * shape[1] - 1
        lrn.lrn_param.alpha = lrn.lrn_param.local_size
        lrn.lrn_param.beta = 0.5
        lrn.lrn_param.k = max(eps**2, 1e-30)
        return [lrn]
    if len(shape) != 2:
        raise UserError(f"layer '{layer.name}': Norm of {len(shape)} axes has no stock equal")
    squares, inverse = f"{layer.name}_squares", f"{layer.name}_inverse"
    reduction = _new(layer, squares, "Reduction", [bottom], [squares])
    reduction.reduction_param.operation = SUMSQ
    reduction.reduction_param.axis = 1
    power = _new(layer, inverse, "Power", [squares], [inverse])
    power.power_param.power = -0.5
    power.power_param.shift = max(eps**2, 1e-30)
    scale = _new(layer, layer.name, "Scale", [bottom, inverse], [top])
    scale.scale_param.axis = 0
    return [reduction, power, scale]


def _margin(layer, shape, out):
    """Logits scale * r * cos: an InnerProduct with unit rows, of unit features where asked."""
    if layer.type == "Python":
        raise UserError(f"layer '{layer.name}': deploy the C++ layer's net, or choose --blob")
    param = layer.margin_inner_product_param
    bottom = layer.bottom[0]
    if param.normalize_features:
        if len(shape) != 2 or param.axis != 1:
            raise UserError(f"layer '{layer.name}': normalize_features needs features in rows")
        unit = f"{layer.name}_unit"
        helper = _new(layer, unit, "Norm", [bottom], [unit])
        out.layers += norm_layers(helper, shape)
        bottom = unit
    product = _new(layer, layer.name, "InnerProduct", [bottom], layer.top[:1])
    product.inner_product_param.num_output = param.num_output
    product.inner_product_param.axis = param.axis
    product.inner_product_param.bias_term = False
    out.layers.append(product)

    def unit_rows(blobs, scale=param.scale):
        weights = np.asarray(blobs[0], np.float64)
        norms = np.linalg.norm(weights, axis=1, keepdims=True)
        return [weights / np.where(norms > 0, norms, 1) * scale]

    out.weights[layer.name] = (layer.name, unit_rows)


def _new(layer, name, type_name, bottoms, tops):
    return type(layer)(name=name, type=type_name, bottom=bottoms, top=tops)
