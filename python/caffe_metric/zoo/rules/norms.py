"""Layers that divide features by their L2 norm: they become Norm.

Some take a vector at each position of a map, some the whole sample. For rows of features these are
the same; where they are not, Flatten stands before Norm, if nothing after it minds.
"""

from __future__ import annotations

# Layers that read a map of C x H x W as a row of features anyway.
_FLAT_READERS = ("InnerProduct", "Silence", "MarginInnerProduct", "Flatten")
_SAME_SHAPE = (
    "ReLU",
    "PReLU",
    "Dropout",
    "Scale",
    "BatchNorm",
    "Power",
    "ELU",
    "Sigmoid",
    "TanH",
    "Norm",
    "BN",
    "Bias",
    "AbsVal",
    "Normalize",
    "NormL2",
    "Normalization",
    "L2Normalize",
)
_WHOLE = ("NormL2", "Normalization")
TYPES = ("Normalize", "NormL2", "Normalization", "L2Normalize", "L2Norm", "L2Normalization")
_PYTHON = ("Norm2Layer", "L2NormLayer", "L2NormalizeLayer")


def is_norm(net, layer) -> bool:
    """Whether a layer gives features of length 1, or of one constant length: L2, without a blob."""
    if layer.type == "Python":
        return layer.message.python_param.layer in _PYTHON
    return layer.type == "Norm" or (layer.type in TYPES and not why_not(net, layer))


def factor(layer) -> float:
    """The length of the features that it gives."""
    return layer.message.normalize_param.coeff if layer.type == "Normalize" else 1.0


def why_not(net, layer) -> str:
    """Why a layer of TYPES is no L2 norm; "" where it is one."""
    given = layer.message.normalize_param
    if is_ssd(net, layer):
        return "SSD's Normalize has a learned scale"
    if layer.type == "Normalize" and given.normalize_type not in ("", "L2"):
        return f"normalize_type {given.normalize_type}: there is no such layer; nearest: Norm (L2)"
    return ""


def is_ssd(net, layer) -> bool:
    """Whether it is SSD's layer of the name, which has a learned scale."""
    message = layer.message
    ssd = ("across_spatial", "scale_filler", "channel_shared", "eps")
    own = any(message.normalize_param.HasField(name) for name in ssd)
    return layer.type == "Normalize" and (
        message.HasField("norm_param")
        or own
        or bool(message.param)
        or bool(net.models.get(layer.name))
    )


def rewrite(net, layer) -> None:
    """A layer of TYPES."""
    message, was = layer.message, layer.type
    given = message.normalize_param
    if is_ssd(net, layer):
        layer.left = True
        net.stays(layer, "Normalize", "SSD's, another layer: it has a learned scale")
        return
    reason = why_not(net, layer)
    if reason:
        net.refuse(layer, was, reason)
        return
    reader = net.reader_of(layer, 1)
    if reader:
        net.refuse(
            layer,
            "Normalize with the norm as second top",
            f"layer '{reader}' reads the norm; only ChannelScale of the logits may",
        )
        return
    why = _why(layer)
    whole = layer.type in _WHOLE or given.HasField("coeff")
    flatten = whole and not _is_row(net, layer)
    if flatten:
        odd = [reader.name for reader, _ in net.graph.readers(layer) if not _reads_rows(reader)]
        if odd:
            net.refuse(
                layer,
                was,
                "divides a whole sample by its norm; over a map Norm acts at "
                f"each position, and layer '{odd[0]}' reads a map",
            )
            return
    _become(net, layer, was, why, flatten, factor(layer))


def _why(layer) -> str:
    message = layer.message
    given, why = message.normalize_param, []
    if given.fix_gradient:
        why.append("fix_gradient goes: the exact gradient has the division by the norm")
    if layer.type == "Normalization":
        why.append("a row of zeros gives zeros, not NaN")
        if message.normalization_param.norm == 1:
            why.append("norm: L1 computed L2, and so does this")
    if layer.type == "Normalize" and not message.HasField("normalize_param"):
        why.append("over axis 1 at each position")
    return "; ".join(why)


def protect(net, layer) -> None:
    """Norm computes its gradient from its top: no other layer may compute in that blob."""
    message = layer.message
    inside = [
        reader for reader, place in net.graph.readers(layer) if message.top[0] in reader.message.top
    ]
    if not inside:
        return
    in_place = message.top[0] == message.bottom[0]
    if in_place and not net.rename_source(layer, net.free_name(f"{message.name}_before")):
        why = f"layer '{inside[0].name}' computes in its blob, in some nets only"
        net.refuse(layer, layer.type, why)
        return
    unit = net.free_name(f"{message.name}_unit")
    readers = net.graph.readers(layer)
    message.top[0] = unit
    net.touch(layer)
    for reader, place in readers:
        net.rename_bottom(reader, place, unit)
    net.changed(
        layer,
        layer.type,
        f"with a top of its own, '{unit}'",
        f"layer '{inside[0].name}' computes in the old one, which the gradient needs",
    )


def _become(net, layer, was, why, flatten, length) -> None:
    message = layer.message
    in_place = message.top[0] == message.bottom[0]
    if (
        in_place
        and (flatten or length != 1)
        and not net.rename_source(layer, net.free_name(f"{message.name}_before"))
    ):
        net.refuse(layer, was, "computes in place, and its readers are not the same in all nets")
        return
    made, bottom, top = [], message.bottom[0], message.top[0]
    if flatten:
        flat = net.free_name(f"{message.name}_rows")
        made.append(net.new_layer(flat, "Flatten", [bottom], [flat], message))
        bottom = flat
    unit = top if length == 1 else net.free_name(f"{message.name}_unit")
    if len(message.top) > 1:
        net.drop_tops(layer, 1)
        why = "; ".join(filter(None, [why, "the second top, which nothing reads, goes"]))
    norm = net.new_layer(message.name, "Norm", [bottom], [unit], message)
    made.append(norm)
    words = "Norm"
    if length != 1:
        name = net.free_name(f"{message.name}_length")
        scale = net.new_layer(name, "Scale", [unit], [top], message)
        scale.param.add(lr_mult=0, decay_mult=0)
        scale.scale_param.filler.type = "constant"
        scale.scale_param.filler.value = length
        made.append(scale)
        words = f"Norm, and Scale by {length:g} that does not learn"
    if flatten:
        words = f"Flatten, {words}"
    net.changed(layer, was, words, why)
    net.replace(layer, made)


def python_norm(net, layer) -> None:
    """Norm2Layer and its like, whose backward passes nothing on."""
    message = layer.message
    was = f"Python layer {message.python_param.layer}"
    norm = net.new_layer(message.name, "Norm", message.bottom, message.top, message)
    net.changed(layer, was, "Norm", "with the gradient that the module's backward leaves out")
    net.replace(layer, [norm])


def _reads_rows(reader) -> bool:
    kind = reader.type
    return kind in _FLAT_READERS or (kind.endswith("Loss") and kind != "SoftmaxWithLoss")


def _is_row(net, layer) -> bool:
    """Whether its bottom surely has one position: N x C, or N x C x 1 x 1."""
    seen = 0
    while layer is not None and seen < 1000:
        maker = net.graph.maker(layer, 0)
        if maker is None:
            return False
        kind = maker.type
        if kind in ("InnerProduct", "MarginInnerProduct", "Flatten", "Embed"):
            return True
        if kind == "Pooling" and maker.message.pooling_param.global_pooling:
            return True
        if kind in ("DummyData", "Input"):
            field = getattr(
                maker.message, "dummy_data_param" if kind == "DummyData" else "input_param"
            )
            place = list(maker.message.top).index(layer.message.bottom[0])
            shapes = list(field.shape)
            shape = shapes[place if len(shapes) > 1 else 0].dim if shapes else (0, 0, 0)
            return all(size == 1 for size in shape[2:])
        if kind not in _SAME_SHAPE:
            return False
        layer, seen = maker, seen + 1
    return False
