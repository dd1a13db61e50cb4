"""BatchNorm, Scale and Bias, taken into the convolution or product before them.

Each maps a channel c to a_c x + b_c in phase TEST, so the layer before does it by its own weights:
w'_c = a_c w_c, bias'_c = a_c bias_c + b_c. In float64.
"""

from __future__ import annotations

import numpy as np

LINEAR = ("Convolution", "InnerProduct", "Deconvolution")


def fold(layers, weights, output):
    """The layers without those that were folded; weights {layer: [arrays]} are changed.

    A layer is folded where nobody else reads what it reads. output: the blob that is wanted, whose
    name stays.
    """
    layers = list(layers)
    for layer in list(layers):
        before = _before(layers, layer, output)
        affine = _affine(layer, weights.get(layer.name, [])) if before is not None else None
        if affine is None:
            continue
        _apply(before, weights, *affine)
        layers.remove(layer)
        before.top[0] = layer.top[0]
        weights.pop(layer.name, None)
    return layers


def _before(layers, layer, output):
    """The linear layer whose output this layer alone reads, or None."""
    if layer.type not in ("BatchNorm", "Scale", "Bias") or len(layer.bottom) != 1:
        return None
    at = layers.index(layer)
    makers = [other for other in layers[:at] if layer.bottom[0] in other.top]
    if not makers or makers[-1].type not in LINEAR:
        return None
    before = makers[-1]
    name = layer.bottom[0]
    between = layers[layers.index(before) + 1 :]
    readers = [other for other in between if other is not layer and name in other.bottom]
    if layer.top[0] == name:
        # In place: later readers mean what this layer makes.
        readers = [other for other in readers if layers.index(other) < at]
    elif name == output:
        return None
    return None if readers else before


def _affine(layer, blobs):
    """(a, b), a number a channel, or None for another arrangement."""
    if layer.type == "BatchNorm":
        mean, variance, factor = (np.asarray(blob, np.float64).ravel() for blob in blobs)
        factor = 1 / factor[0] if factor[0] else 0.0
        a = 1 / np.sqrt(variance * factor + layer.batch_norm_param.eps)
        return a, -a * mean * factor
    given = layer.scale_param if layer.type == "Scale" else layer.bias_param
    if given.axis != 1 or given.num_axes != 1:
        return None
    arrays = [np.asarray(blob, np.float64).ravel() for blob in blobs]
    if layer.type == "Bias":
        return np.ones_like(arrays[0]), arrays[0]
    return arrays[0], arrays[1] if given.bias_term else np.zeros_like(arrays[0])


def _apply(layer, weights, a, b):
    blobs = [np.asarray(blob, np.float64) for blob in weights[layer.name]]
    kernel = blobs[0]
    if layer.type == "Deconvolution":
        # input channels x output channels of a group: the groups' outputs stand one after another
        groups = layer.convolution_param.group
        parts = kernel.reshape(groups, kernel.shape[0] // groups, *kernel.shape[1:])
        shape = (groups, 1, kernel.shape[1]) + (1,) * (kernel.ndim - 2)
        scaled = (parts * a.reshape(shape)).reshape(kernel.shape)
    elif layer.type == "InnerProduct" and layer.inner_product_param.transpose:
        scaled = kernel * a
    else:
        scaled = kernel * a.reshape((-1,) + (1,) * (kernel.ndim - 1))
    bias = blobs[1].ravel() if len(blobs) > 1 else 0.0
    weights[layer.name] = [scaled, a * bias + b]
    given = layer.inner_product_param if layer.type == "InnerProduct" else layer.convolution_param
    given.bias_term = True
