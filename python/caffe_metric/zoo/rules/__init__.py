"""One rule a layer of a fork: what it becomes, or why it cannot."""

from __future__ import annotations

from caffe_metric.zoo import dialect
from caffe_metric.zoo.rules import (
    batch_norms,
    centers,
    classifier,
    convolutions,
    images,
    large_margin,
    lifted,
    margins,
    named,
    norms,
    products,
    ranks,
    stock_fields,
    triplets,
)

# Type: the rule of a layer that stands for itself. Those of rows of layers come first, below.
BY_TYPE = {
    **dict.fromkeys(norms.TYPES, norms.rewrite),
    **dict.fromkeys(
        ("LargeMarginInnerProduct", "SmoothMarginInnerProduct", "AngularTriplet"),
        large_margin.rewrite,
    ),
    "MarginInnerProduct": large_margin.stays,
    "CenterLoss": centers.rewrite,
    "LiftedStructSimilaritySoftmaxLoss": lifted.rewrite,
    "TripletLoss": triplets.rewrite,
    "SampleTriplet": triplets.sampler,
    "BatchTripletLoss": triplets.batch,
    "RankHardLoss": ranks.rewrite,
    "ImageData": images.rewrite,
    "BN": batch_norms.rewrite,
    "DepthwiseConvolution": convolutions.rewrite,
    "ConvolutionDepthwise": convolutions.rewrite,
}

# The class of a Python layer, whatever its module: its rule.
BY_PYTHON_CLASS = {
    "Norm2Layer": norms.python_norm,
    "L2NormLayer": norms.python_norm,
    "L2NormalizeLayer": norms.python_norm,
    "TripletLayer": triplets.python_loss,
    "TripletSelectLayer": triplets.python_select,
    "DataLayer": triplets.python_data,
}


def apply(net) -> None:
    """All of them."""
    _fields(net)
    for layer in list(net.layers):
        if classifier.is_product(layer):
            classifier.rewrite(net, layer)
    for layer in list(net.layers):
        if not layer.done:
            _by_type(net, layer)
    for layer in list(net.layers):
        stock_fields.rewrite(net, layer)
        if layer.type == "Norm":
            norms.protect(net, layer)
    products.twins(net)
    _rest(net)


def recognised(type_name: str) -> bool:
    """Whether a type that Caffe and this project lack is one of a fork that is known here."""
    return (
        type_name in BY_TYPE
        or type_name in margins.MARGINS
        or type_name in ("ChannelScale", "CenterProjection")
        or named.known(type_name)
    ) and type_name not in dialect.types()


def _by_type(net, layer) -> None:
    kind = layer.type
    if kind == "Python":
        rule = BY_PYTHON_CLASS.get(layer.message.python_param.layer)
        reason = named.PYTHON.get(layer.message.python_param.layer)
        if reason:
            net.refuse(layer, f"Python layer {layer.message.python_param.layer}", reason)
        elif rule and layer.message.python_param.module != "caffe_metric.layers":
            rule(net, layer)
    elif classifier.is_product(layer):
        pass  # named already
    elif kind in margins.MARGINS or kind == "ChannelScale":
        net.refuse(
            layer,
            kind,
            "stands behind no InnerProduct { normalize: true } of features of "
            "length 1 that could be rewritten with it",
        )
    elif kind in BY_TYPE:
        BY_TYPE[kind](net, layer)
    elif kind == "InnerProduct" and len(layer.message.bottom) > 1:
        net.refuse(
            layer,
            kind,
            f"has {len(layer.message.bottom)} bottoms: weights that are a blob "
            "of the net; nearest: two layers that share weights by the name of a param",
        )
    elif kind == "ContrastiveLoss" and len(layer.message.bottom) == 4:
        net.refuse(
            layer,
            kind,
            "has 4 bottoms, two of features and two of labels; nearest: BatchContrastiveLoss",
        )
    elif named.known(kind) and kind not in dialect.types():
        named.rewrite(net, layer)
    elif kind not in dialect.types():
        net.refuse(
            layer,
            kind or "a layer without type",
            "no Caffe and no fork that is known here has a layer of this type",
        )


def _fields(net) -> None:
    """What stands outside the layers."""
    document = net.document
    if document.upgraded:
        net.changed(None, "an old net (`layers`)", "`layer`", "as Caffe upgrades it")
    for entry in document.others:
        if entry.name == "mem_param":
            document.edits.append((entry.start, entry.end, ""))
            net.changed(
                None, "mem_param", "dropped", "it asks for memory, not for numbers", entry.line
            )
        elif dialect.load().complete:
            net.refuse(
                None,
                entry.name,
                "no Caffe and no fork that is known here has this field",
                entry.line,
            )


def _rest(net) -> None:
    """No field of a fork may be left, and none that nobody knows.

    Where not all of Caffe's own fields are known, layers that keep their text may have any.
    """
    for layer in net.layers:
        if layer.left or net.refused(layer):
            continue
        names = []
        if dialect.load().complete or layer.now is not None:
            names = [(line, name, _UNKNOWN) for line, name in layer.unknown]
        for message in layer.now if layer.now is not None else [layer.message]:
            names += [(layer.line_of(name), name, _FOREIGN) for name in dialect.foreign(message)]
        for line, name, why in names:
            net.refuse(layer, f"{layer.type} with {name}", why, line)


_UNKNOWN = "no Caffe and no fork that is known here has this field"
_FOREIGN = "a field of another fork, and no layer here does what it asks"
