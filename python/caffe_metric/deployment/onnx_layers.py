"""Each stock layer of Caffe as nodes of ONNX: CONVERTERS[type](writer, layer).

`w` is an onnx_file.Writer, which refuses what has no equal.
"""

from __future__ import annotations

import numpy as np


def _input(w, layer):
    w.top()


def _pair(given, name, default):
    """(height, width) of kernel_size, stride or pad."""
    stem = {"kernel_size": "kernel"}.get(name, name)
    height, width = getattr(given, f"{stem}_h"), getattr(given, f"{stem}_w")
    if height or width:
        return [height, width]
    listed = getattr(given, name)
    values = [listed] if isinstance(listed, int) else list(listed)
    return (values * 2)[:2] if values else [default, default]


def _convolution(w, layer):
    given = layer.convolution_param
    if given.axis != 1 or len(w.shape()) != 4:
        w.refuse(f"axis {given.axis} of {len(w.shape())} axes")
    pads = _pair(given, "pad", 0)
    dilation = (list(given.dilation) * 2)[:2] or [1, 1]
    blobs = w.blobs()
    inputs = [w.bottom(), w.constant(blobs[0], "weight")]
    if given.bias_term:
        inputs.append(w.constant(blobs[1].ravel(), "bias"))
    kind = "Conv" if layer.type == "Convolution" else "ConvTranspose"
    w.node(
        kind,
        inputs,
        w.top(),
        kernel_shape=list(blobs[0].shape[2:]),
        strides=_pair(given, "stride", 1),
        pads=pads * 2,
        dilations=dilation,
        group=given.group,
    )


def _inner_product(w, layer):
    given = layer.inner_product_param
    if given.axis not in (1, 1 - len(w.shape())):
        w.refuse(f"axis {given.axis}")
    blobs = w.blobs()
    kernel = blobs[0].reshape(blobs[0].shape[-2:])
    rows = w.bottom()
    if len(w.shape()) != 2:
        rows = w.node("Flatten", [rows], w.part(), axis=1)
    inputs = [rows, w.constant(kernel, "weight")]
    if given.bias_term:
        inputs.append(w.constant(blobs[1].ravel(), "bias"))
    w.node("Gemm", inputs, w.top(), transB=int(not given.transpose))


def _pooling(w, layer):
    given = layer.pooling_param
    if given.pool not in (0, 1):
        w.refuse("STOCHASTIC")
    biggest = given.pool == 0
    if given.global_pooling:
        w.node("GlobalMaxPool" if biggest else "GlobalAveragePool", [w.bottom()], w.top())
        return
    kernel, stride, pad = (
        _pair(given, name, default)
        for name, default in (("kernel_size", 1), ("stride", 1), ("pad", 0))
    )
    sides, out = w.shape()[2:], w.shapes[layer.top[0]][2:]
    # Caffe rounds the number of windows up: the last ones may go beyond the padded image.
    ends = [
        max(0, (n - 1) * s + k - side - p)
        for n, s, k, side, p in zip(out, stride, kernel, sides, pad)
    ]
    attributes = {"kernel_shape": kernel, "strides": stride, "pads": [*pad, *ends]}
    bottom = w.bottom()
    if any(end >= k for end, k in zip(ends, kernel)):
        w.refuse("a window outside of the image")
    if biggest:
        w.node("MaxPool", [bottom], w.top(), **attributes)
        return
    # A window's size counts the padding, but not what lies beyond it.
    sizes = [
        [min(i * s - p + k, side + p) - (i * s - p) for i in range(n)]
        for n, s, k, side, p in zip(out, stride, kernel, sides, pad)
    ]
    share = np.prod(kernel) / np.outer(*sizes)
    if np.all(share == 1):
        w.node("AveragePool", [bottom], w.top(), count_include_pad=1, **attributes)
        return
    means = w.node("AveragePool", [bottom], w.part(), count_include_pad=1, **attributes)
    factor = w.constant(share.astype(np.float32)[None, None], "share")
    w.node("Mul", [means, factor], w.top())


def _relu(w, layer):
    slope = layer.relu_param.negative_slope
    bottom = w.bottom()
    if slope:
        w.node("LeakyRelu", [bottom], w.top(), alpha=slope)
    else:
        w.node("Relu", [bottom], w.top())


def _prelu(w, layer):
    slope = w.blobs()[0].ravel()
    w.node("PRelu", [w.bottom(), w.constant(w.channels(slope), "slope")], w.top())


def _simple(kind):
    def convert(w, layer):
        w.node(kind, [w.bottom()], w.top())

    return convert


def _elu(w, layer):
    w.node("Elu", [w.bottom()], w.top(), alpha=layer.elu_param.alpha)


def _softmax(w, layer):
    w.node("Softmax", [w.bottom()], w.top(), axis=layer.softmax_param.axis)


def _batch_norm(w, layer):
    mean, variance, factor = (blob.ravel() for blob in w.blobs())
    factor = np.float32(1 / factor[0] if factor[0] else 0)
    inputs = [
        w.bottom(),
        w.constant(np.ones_like(mean), "one"),
        w.constant(np.zeros_like(mean), "zero"),
        w.constant(mean * factor, "mean"),
        w.constant(variance * factor, "variance"),
    ]
    w.node("BatchNormalization", inputs, w.top(), epsilon=layer.batch_norm_param.eps)


def _scale(w, layer):
    given = layer.scale_param
    if len(layer.bottom) != 1 or given.axis != 1 or given.num_axes != 1:
        w.refuse("two bottoms, or another axis than the channels")
    blobs = w.blobs()
    inputs = [w.bottom(), w.constant(w.channels(blobs[0]), "scale")]
    if not given.bias_term:
        w.node("Mul", inputs, w.top())
        return
    scaled = w.node("Mul", inputs, w.part())
    w.node("Add", [scaled, w.constant(w.channels(blobs[1]), "bias")], w.top())


def _bias(w, layer):
    if len(layer.bottom) != 1 or layer.bias_param.axis != 1 or layer.bias_param.num_axes != 1:
        w.refuse("two bottoms, or another axis than the channels")
    w.node("Add", [w.bottom(), w.constant(w.channels(w.blobs()[0]), "bias")], w.top())


def _power(w, layer):
    given = layer.power_param
    value = w.bottom()
    steps = [("Mul", given.scale, 1), ("Add", given.shift, 0), ("Pow", given.power, 1)]
    steps = [(kind, number) for kind, number, nothing in steps if number != nothing]
    if not steps:
        w.node("Identity", [value], w.top())
    for number, (kind, factor) in enumerate(steps):
        constant = w.constant(np.float32(factor), kind)
        target = w.top() if number == len(steps) - 1 else w.part()
        value = w.node(kind, [value, constant], target)


def _eltwise(w, layer):
    given = layer.eltwise_param
    bottoms = [w.bottom(i) for i in range(len(layer.bottom))]
    kind = ("Mul", "Add", "Max")[given.operation]
    if kind == "Add":
        for i, factor in enumerate(given.coeff):
            if factor != 1:
                constant = w.constant(np.float32(factor), f"coefficient{i}")
                bottoms[i] = w.node("Mul", [bottoms[i], constant], w.part())
    value = bottoms[0]
    for i, other in enumerate(bottoms[1:], 1):
        value = w.node(kind, [value, other], w.top() if i == len(bottoms) - 1 else w.part())


def _concat(w, layer):
    bottoms = [w.bottom(i) for i in range(len(layer.bottom))]
    given = layer.concat_param
    axis = given.concat_dim if given.HasField("concat_dim") else given.axis
    w.node("Concat", bottoms, w.top(), axis=axis)


def _slice(w, layer):
    from onnx import helper

    given = layer.slice_param
    axis = given.slice_dim if given.HasField("slice_dim") else given.axis
    side = w.shape()[axis]
    points = list(given.slice_point)
    if not points:
        step = side // len(layer.top)
        points = [step * i for i in range(1, len(layer.top))]
    sizes = np.diff([0, *points, side]).astype(np.int64)
    inputs = [w.bottom(), w.constant(sizes, "sizes")]
    tops = [w.top(i) for i in range(len(layer.top))]
    w.nodes.append(helper.make_node("Split", inputs, tops, f"{layer.name}/Split", axis=axis))


def _reshape(w, layer):
    if w.shape()[0] != w.shapes[layer.top[0]][0]:
        w.refuse("a change of the batch")
    # 0 keeps the batch.
    shape = np.array([0, *w.shapes[layer.top[0]][1:]], np.int64)
    w.node("Reshape", [w.bottom(), w.constant(shape, "shape")], w.top())


def _lrn(w, layer):
    given = layer.lrn_param
    if given.norm_region != 0:
        w.refuse("WITHIN_CHANNEL")
    w.node(
        "LRN",
        [w.bottom()],
        w.top(),
        size=given.local_size,
        alpha=given.alpha,
        beta=given.beta,
        bias=given.k,
    )


def _split(w, layer):
    bottom = w.bottom()
    for i in range(len(layer.top)):
        w.node("Identity", [bottom], w.top(i))


CONVERTERS = {
    "AbsVal": _simple("Abs"),
    "BatchNorm": _batch_norm,
    "Bias": _bias,
    "Concat": _concat,
    "Convolution": _convolution,
    "Deconvolution": _convolution,
    "ELU": _elu,
    "Eltwise": _eltwise,
    "Flatten": _reshape,
    "InnerProduct": _inner_product,
    "Input": _input,
    "LRN": _lrn,
    "PReLU": _prelu,
    "Pooling": _pooling,
    "Power": _power,
    "ReLU": _relu,
    "Reshape": _reshape,
    "Scale": _scale,
    "Sigmoid": _simple("Sigmoid"),
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "TanH": _simple("Tanh"),
}
