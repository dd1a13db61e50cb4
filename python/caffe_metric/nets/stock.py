"""Layers of ours, written with those that every Caffe, OpenCV's dnn and ONNX have, for deployment.

A step takes the layers of a net and gives them anew; what has to happen to the weights stands in
`Rewritten.weights`: {new layer: (old layer or None, function of its blobs)}.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from caffe_metric import suite
from caffe_metric.nets import roles, schema
from caffe_metric.nets.roles import kind
from caffe_metric.support.errors import UserError

PRODUCT = 0  # caffe.EltwiseParameter.EltwiseOp
LEAST = 1e-30  # of what is added to a sum of squares: its root's inverse is a float, too


@dataclass
class Rewritten:
    """Layers of stock types, where their weights come from, and the name of the output."""

    layers: list
    output: str
    weights: dict = field(default_factory=dict)


def to_stock(layers, shapes, output) -> Rewritten:
    """Replaces Norm and MarginInnerProduct, and leaves Dropout out.

    shapes: {blob: shape} in the old net. output: the blob that is wanted. Raises UserError for a
    layer that has no stock equal.
    """
    layers, output = without(layers, output, is_dropout)
    out = Rewritten([], output)
    for layer in layers:
        row = kind(layer)
        if row == "Norm":
            _norm(layer, shapes[layer.bottom[0]], out)
        elif row == "MarginInnerProduct":
            _margin(layer, shapes[layer.bottom[0]], out)
        elif suite.find(row) is not None or layer.type == "Python":
            raise UserError(f"layer '{layer.name}': a {row} layer has no stock equal")
        else:
            out.layers.append(layer)
            out.weights[layer.name] = (layer.name, lambda blobs: blobs)
    return out


def is_dropout(layer) -> bool:
    """Dropout does nothing in phase TEST."""
    return layer.type == "Dropout"


def last_norm(layers, output):
    """The name of the Norm that makes the output, "" where none does."""
    layers, output = without(layers, output, is_dropout)
    makers = [layer for layer in layers if output in layer.top]
    return makers[-1].name if makers and kind(makers[-1]) == "Norm" else ""


def without(layers, output, gone):
    """Copies of the layers without those of one bottom and top that are `gone`, and the output.

    Later layers, and the output, are what those read.
    """
    renamed, kept = {}, []
    for layer in layers:
        copy = type(layer)()
        copy.CopyFrom(layer)
        copy.bottom[:] = [renamed.get(bottom, bottom) for bottom in layer.bottom]
        if gone(layer):
            if copy.top[0] != copy.bottom[0]:
                renamed[copy.top[0]] = copy.bottom[0]
            continue
        for top in copy.top:
            renamed.pop(top, None)
        kept.append(copy)
    return kept, renamed.get(output, output)


def parameters(layer):
    """All fields of the message of a layer of ours, C++ or Python, as attributes."""
    message = schema.message(suite.find(kind(layer)).message)
    names = [known.name for known in message.fields]
    given = roles.parameters(layer)
    return message.parse({name: value for name, value in given.items() if name in names})


def _norm(layer, shape, out):
    bottom, top = layer.bottom[0], layer.top[0]
    if bottom == top:
        # The layers that make a blob and one that works in place have one name for two things.
        bottom = f"{layer.name}_input"
        made = False
        for earlier in out.layers:
            made = made or top in earlier.top
            for names in (earlier.bottom, earlier.top):
                for number, name in enumerate(names):
                    names[number] = bottom if name == top else name
        if not made:
            raise UserError(f"layer '{layer.name}': works in place on the net's input")
    add_norm(layer, layer.name, bottom, top, shape, parameters(layer).eps, out)


def add_norm(layer, name, bottom, top, shape, eps, out):
    """y = x / max(|x|, eps) as x * (sum of squares + eps^2) ^ -1/2.

    Power, a product with ones, Power, Eltwise: the sum stands in each of the C places, so that no
    runtime has to repeat it. It differs from Norm only where |x| is near eps.
    """
    if len(shape) not in (2, 4):
        raise UserError(f"layer '{name}': Norm of {len(shape)} axes has no stock equal")
    squares, sums, inverse = (f"{name}_{part}" for part in ("squares", "sums", "inverse"))
    square = _new(layer, squares, "Power", [bottom], [squares])
    square.power_param.power = 2
    channels = int(shape[1])
    if len(shape) == 2:
        add = _new(layer, sums, "InnerProduct", [squares], [sums])
        add.inner_product_param.num_output = channels
        add.inner_product_param.bias_term = False
        ones = np.ones((channels, channels), np.float32)
    else:
        add = _new(layer, sums, "Convolution", [squares], [sums])
        add.convolution_param.num_output = channels
        add.convolution_param.kernel_size.append(1)
        add.convolution_param.bias_term = False
        ones = np.ones((channels, channels, 1, 1), np.float32)
    power = _new(layer, inverse, "Power", [sums], [inverse])
    power.power_param.power = -0.5
    power.power_param.shift = max(eps**2, LEAST)
    product = _new(layer, name, "Eltwise", [bottom, inverse], [top])
    product.eltwise_param.operation = PRODUCT
    out.layers += [square, add, power, product]
    out.weights[sums] = (None, lambda blobs: [ones])


def _margin(layer, shape, out):
    """Logits scale * r * cos: an InnerProduct with unit rows, of unit features where asked."""
    given = parameters(layer)
    bottom = layer.bottom[0]
    if given.normalize_features:
        if len(shape) != 2 or given.axis not in (1, -1):
            raise UserError(f"layer '{layer.name}': normalize_features needs features in rows")
        unit = f"{layer.name}_unit"
        add_norm(layer, unit, bottom, unit, shape, LEAST, out)
        bottom = unit
    product = _new(layer, layer.name, "InnerProduct", [bottom], layer.top[:1])
    product.inner_product_param.num_output = given.num_output
    product.inner_product_param.axis = given.axis
    product.inner_product_param.bias_term = False
    out.layers.append(product)

    def rows(blobs):
        weights = np.asarray(blobs[0], np.float64)
        norms = np.linalg.norm(weights, axis=1, keepdims=True)
        if not getattr(given, "normalize_weights", True):
            norms = np.ones_like(norms)
        return [weights / np.where(norms > 0, norms, 1) * given.scale]

    out.weights[layer.name] = (layer.name, rows)


def _new(layer, name, type_name, bottoms, tops):
    return type(layer)(name=name, type=type_name, bottom=bottoms, top=tops)
