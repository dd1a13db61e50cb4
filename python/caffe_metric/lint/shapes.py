"""Shapes of tops from shapes of bottoms, for the layers that metric nets are made of.

A shape is a tuple in which None stands for a number that the prototxt does not tell; None alone
stands for a shape of which nothing is known.
"""

from __future__ import annotations

import math

from caffe_metric.lint import sources
from caffe_metric.nets import roles

SAME = frozenset(
    [
        "AbsVal",
        "BatchNorm",
        "Bias",
        "BNLL",
        "Clip",
        "Dropout",
        "ELU",
        "Exp",
        "Log",
        "LRN",
        "MVN",
        "Norm",
        "Power",
        "PReLU",
        "ReLU",
        "Scale",
        "Sigmoid",
        "Softmax",
        "Swish",
        "TanH",
        "Threshold",
    ]
)


def infer(layer, bottoms) -> list:
    """The shapes of the layer's tops."""
    name = roles.kind(layer)
    count = len(layer.top)
    if name in SAME:
        return [bottoms[0] if bottoms else None]
    if name == "Split":
        return [bottoms[0] if bottoms else None] * count
    if name.endswith("Loss") or name == "Accuracy":
        return [()] * count
    rule = RULES.get(name)
    return rule(layer, bottoms) if rule else [None] * count


def size(shape, begin: int = 0, end: int | None = None):
    """The product of some of a shape's numbers, None where one is unknown."""
    if shape is None:
        return None
    numbers = shape[begin:end]
    return None if None in numbers else math.prod(numbers)


def _input(layer, bottoms):
    given = [tuple(shape.dim) for shape in layer.input_param.shape]
    return given * len(layer.top) if len(given) == 1 else given


def _dummy(layer, bottoms):
    given = [tuple(shape.dim) for shape in layer.dummy_data_param.shape]
    return given * len(layer.top) if len(given) == 1 else given


def _batches(field):
    def rule(layer, bottoms):
        batch = getattr(layer, field).batch_size or None
        channels, *sides = sources.image(layer) or (None, None, None)
        crop = sources.crop_of(layer)
        return [(batch, channels, *([crop] * 2 if crop else sides))] + [(batch,)] * (
            len(layer.top) - 1
        )

    return rule


def _memory(layer, bottoms):
    given = layer.memory_data_param
    return [(given.batch_size, given.channels, given.height, given.width), (given.batch_size,)]


def _inner_product(layer, bottoms):
    given = layer.inner_product_param
    axis = given.axis if given.HasField("axis") else 1
    return [_lead(bottoms, axis, given.num_output)]


def _margin(layer, bottoms):
    given = roles.parameters(layer)
    return [_lead(bottoms, given.get("axis", 1), given.get("num_output")), ()]


def _lead(bottoms, axis, num_output):
    shape = bottoms[0] if bottoms else None
    if shape is None:
        return None
    return (*shape[: axis if axis >= 0 else len(shape) + axis], num_output)


def _images(layer, bottoms):
    """Convolutions and poolings: rows and channels; the extent is not followed."""
    shape = bottoms[0] if bottoms else None
    if shape is None or len(shape) < 3:
        return [None] * len(layer.top)
    channels = shape[1] if layer.type == "Pooling" else layer.convolution_param.num_output
    return [(shape[0], channels, *[None] * (len(shape) - 2))] * len(layer.top)


def _flatten(layer, bottoms):
    shape = bottoms[0] if bottoms else None
    return [None if shape is None else (shape[0], size(shape, 1))]


def _eltwise(layer, bottoms):
    known = [shape for shape in bottoms if shape is not None]
    return [known[0] if known else None]


def _slice(layer, bottoms):
    shape = bottoms[0] if bottoms else None
    given = layer.slice_param
    axis = given.axis if given.HasField("axis") else 1
    count = len(layer.top)
    if shape is None or axis >= len(shape) or shape[axis] is None:
        return [None] * count
    points = [0, *given.slice_point, shape[axis]]
    if len(points) != count + 1:
        points = [shape[axis] * i // count for i in range(count + 1)]
    return [(*shape[:axis], points[i + 1] - points[i], *shape[axis + 1 :]) for i in range(count)]


def _concat(layer, bottoms):
    given = layer.concat_param
    axis = given.axis if given.HasField("axis") else 1
    if any(shape is None or axis >= len(shape) for shape in bottoms) or not bottoms:
        return [None]
    numbers = [shape[axis] for shape in bottoms]
    total = None if None in numbers else sum(numbers)
    return [(*bottoms[0][:axis], total, *bottoms[0][axis + 1 :])]


RULES = {
    "Input": _input,
    "DummyData": _dummy,
    "Data": _batches("data_param"),
    "ImageData": _batches("image_data_param"),
    "MemoryData": _memory,
    "InnerProduct": _inner_product,
    "MarginInnerProduct": _margin,
    "Convolution": _images,
    "Deconvolution": _images,
    "Pooling": _images,
    "Flatten": _flatten,
    "Eltwise": _eltwise,
    "Slice": _slice,
    "Concat": _concat,
}
