"""Classifiers with unit weights: InnerProduct { normalize }, what normalises before it, and the
margin and scale after it, become MarginInnerProduct.

The layers stand in a row, as people build them:

    Normalize -> InnerProduct { normalize } -> a margin -> ChannelScale -> Scale -> SoftmaxWithLoss

each of them but the second may be missing, and each net (TRAIN, TEST, stages) has its own row. What
else reads a blob between them, Accuracy above all, reads the new layer's logits from then on.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from caffe_metric.nets import roles
from caffe_metric.zoo.net import ORDER_ONLY
from caffe_metric.zoo.rules import norms, scales
from caffe_metric.zoo.rules.margins import MARGINS, Margin, Refused


@dataclass
class _Row:
    """The layers of one net that follow the product, in order."""

    net: object
    margin: object = None
    channel: object = None
    constants: list = field(default_factory=list)  # (layer, factor)
    learned: object = None
    # (reader, place, how far the row was: the margin seen, the channel seen, factor so far)
    beside: list = field(default_factory=list)
    last: object = None
    labels: list = field(default_factory=list)  # (reader, place)


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
        net.refuse(layer, _words(layer), str(error))


def _words(layer) -> str:
    return layer.type if layer.type == "CenterProjection" else "InnerProduct { normalize }"


def _rewrite(net, product) -> None:
    message = product.message
    projection = product.type == "CenterProjection"
    given = message.center_projection_param if projection else message.inner_product_param
    if len(message.bottom) != 1:
        raise Refused(f"has {len(message.bottom)} bottoms: weights that are a blob of the net")
    if given.transpose:
        raise Refused("transpose: the rows that the published code divides are no classes then")
    rows = [_row(net, one, product) for one in net.graph.having(product)]
    margin = _one(
        "margin", [row.margin for row in rows if row.net.train] or [row.margin for row in rows]
    )
    channel = _one("ChannelScale", [row.channel for row in rows])
    label = _label(net, product, rows, margin)
    before = _before(net, product)
    if margin is None and channel is None:
        _plain(net, product, given, rows, label, projection)
        return
    if given.bias_term:
        raise Refused("has a bias: a margin needs the cosine alone (bias_term: false)")
    _check_channel(net, channel, before)
    _with_margin(net, product, given, rows, label, margin, channel, before, projection)


# --- Reading the rows ---------------------------------------------------------------------------


def _row(net, one, product) -> _Row:
    """What follows the product in one net."""
    row = _Row(one)
    at = product
    factor = 1.0
    while True:
        readers = one.readers(at)
        following = [
            reader for reader, place in readers if place == 0 and _goes_on(net, row, reader)
        ]
        following = following[:1] if len(following) == 1 else []
        for reader, place in readers:
            if reader not in following:
                row.beside.append(
                    (reader, place, row.margin is not None, row.channel is not None, factor, at)
                )
        if not following:
            row.last = at
            break
        at = following[0]
        value = scales.constant(net, at)
        if at.type in MARGINS:
            row.margin = at
        elif at.type == "ChannelScale":
            row.channel = at
        elif value is not None:
            row.constants.append((at, value))
            factor *= value
        else:
            row.learned = at
            row.last = at
            break
    return row


def _goes_on(net, row, reader) -> bool:
    if reader.type in MARGINS:
        return row.margin is None and row.channel is None
    if reader.type == "ChannelScale":
        return row.channel is None
    return scales.constant(net, reader) is not None or scales.learns(reader)


def _one(what, found):
    """The layer that all rows have, None where none has one."""
    distinct = {id(layer): layer for layer in found}
    if len(distinct) > 1:
        names = ", ".join(f"'{layer.name}'" if layer else "none" for layer in distinct.values())
        raise Refused(f"not one {what} in all nets of the file: {names}")
    return next(iter(distinct.values()), None)


def _label(net, product, rows, margin) -> str:
    """The blob of labels that the product is to read, in every net; "" where none has labels."""
    names = {}
    for row in rows:
        if row.margin is not None:
            names[row.margin.message.bottom[1]] = None
        for name in _labels_after(row.net, product, 0):
            names[name] = None
    for name in names:
        found = [row.net.maker_before(product, name) is not None for row in rows]
        if all(found):
            return name
    if names:
        raise Refused(
            f"the labels '{next(iter(names))}' are not there in every net that has the "
            "layer, or only after it: MarginInnerProduct reads them"
        )
    return ""


def _labels_after(one, layer, depth):
    """The labels of the layers that the logits end in."""
    for reader, place in one.readers(layer):
        if place != 0 or depth > 20:
            continue
        carried = roles.bottom_roles(reader.message)
        for number, role in carried.items():
            if role == roles.LABEL and number < len(reader.message.bottom):
                yield reader.message.bottom[number]
        if not carried:
            yield from _labels_after(one, reader, depth + 1)


@dataclass
class _Before:
    """What stands before the product: a norm, and constants between. factor: of unit features."""

    norm: object = None
    factor: float = 1.0
    between: list = field(default_factory=list)


def _before(net, product) -> _Before:
    found = _Before()
    at = product
    while True:
        maker = net.graph.maker(at, 0)
        if maker is None or maker.message.top[:1] != at.message.bottom[:1]:
            return found
        if norms.is_norm(net, maker):
            found.norm = maker
            found.factor *= norms.factor(maker)
            return found
        value = scales.constant(net, maker)
        if value is None or not value > 0:
            return found
        found.factor *= value
        found.between.append(maker)
        at = maker


def _check_channel(net, channel, before) -> None:
    if channel is None:
        return
    message, given = channel.message, channel.message.channel_scale_param
    of_norm = before.norm is not None and any(
        reader is channel and place == 1 for reader, place in net.graph.readers(before.norm, 1)
    )
    if not of_norm:
        raise Refused(
            f"layer '{message.name}' (ChannelScale) multiplies by '{message.bottom[1]}', "
            "which is not the norm of the very features"
        )
    odd = [
        name
        for name in ("do_forward", "do_backward_feature", "do_backward_scale")
        if not getattr(given, name)
    ] + ["global_scale"] * given.global_scale
    if odd:
        raise Refused(
            f"layer '{message.name}' (ChannelScale): {odd[0]} is no multiplication by the norm"
        )
    if before.factor != 1 or before.between:
        raise Refused(
            f"layer '{message.name}' (ChannelScale) multiplies scaled features by their norm"
        )


# --- Writing ------------------------------------------------------------------------------------


def _new_layer(net, product, given, bottom, label, top, **parameters):
    message = product.message
    made = net.new_layer(message.name, "MarginInnerProduct", [bottom, label], [top], message)
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


def _carry(net, product, made) -> None:
    """The weights, and MarginInnerProduct's iteration count beside them."""
    t = float(made.margin_inner_product_param.iteration)
    net.weights[made.name] = product.name, lambda blobs: [blobs[0], np.array([t], np.float32)]


def _plain(net, product, given, rows, label, projection) -> None:
    """Without a margin: type SINGLE. What stands around it stays."""
    for row in rows:
        if row.learned is not None:
            _without_clamp(net, row.learned)
    if not label:
        _unlabelled(net, product, given, projection)
        return
    message, top = product.message, product.message.top[0]
    parameters = {"scale": given.scale} if projection and given.scale != 1 else {}
    product_top = net.free_name(f"{message.name}_product") if given.bias_term else top
    made = _new_layer(net, product, given, message.bottom[0], label, product_top, **parameters)
    _carry(net, product, made)
    layers, words = [made], "MarginInnerProduct type SINGLE"
    if parameters:
        words += f" with scale {given.scale:g}"
    if given.bias_term:
        layers.append(_bias(net, product, given, product_top, top))
        words += ", and Bias"
    why = ["unit rows, the exact gradient: the published one leaves its radial part in"]
    net.changed(product, _words(product), words, "; ".join(why))
    net.replace(product, layers)


def _bias(net, product, given, bottom, top):
    message = product.message
    name = net.free_name(f"{message.name}_bias")
    bias = net.new_layer(name, "Bias", [bottom], [top], message)
    bias.param.extend(message.param[1:2])
    bias.bias_param.axis = given.axis
    if given.HasField("bias_filler"):
        bias.bias_param.filler.CopyFrom(given.bias_filler)
    net.weights[name] = message.name, lambda blobs: [blobs[1]]
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
        rows = np.asarray(blobs[0], np.float64)
        norms_ = np.linalg.norm(rows, axis=-1, keepdims=True)
        return [(rows / np.where(norms_ > 0, norms_, 1) * scale).astype(np.float32), *blobs[1:]]

    net.weights[message.name] = message.name, unit
    net.changed(
        product,
        _words(product),
        "InnerProduct",
        "no labels here: the rows of the new model are of unit length"
        + (f" times {scale:g}" if scale != 1 else ""),
    )
    net.replace(product, [made])


def _with_margin(net, product, given, rows, label, margin, channel, before, projection) -> None:
    message = product.message
    if before.norm is None:
        raise Refused(
            f"layer '{(margin or channel).name}' needs cosines, and no layer here makes "
            f"the features '{message.bottom[0]}' of length 1"
        )
    found = _margin_of(net, margin)
    if not label:
        raise Refused("the margin's labels are not there in every net that has the layer")
    if projection and given.scale != 1:
        raise Refused(f"scale {given.scale:g} before the margin: no cosines")
    if found.angular and before.factor != 1:
        raise Refused(
            f"the features have length {before.factor:g}: layer '{margin.name}' needs cosines"
        )
    post = _post_scale(net, rows, found)
    folded = [layer for layer in (margin, channel) if layer is not None]
    scale = before.factor
    if post is not None:
        scale *= post
        folded += [layer for row in rows for layer, _ in row.constants]
    folded = list({id(layer): layer for layer in folded}.values())
    if found.cosine:
        found.cosine /= before.factor
    top = _top(product, rows, folded)
    _check_beside(rows, folded, post, channel)

    bottom, keep = _features(net, product, before, channel)
    parameters = {} if channel is not None else {"normalize_features": True}
    for name, value, usual in (
        ("scale", scale, 1),
        ("angular_margin", found.angular, 0),
        ("cosine_margin", found.cosine, 0),
        ("margin_in_test", found.in_test, False),
    ):
        if value != usual:
            parameters[name] = round(value, 9) if isinstance(value, float) else value
    made = _new_layer(net, product, given, bottom, label, top, **parameters)
    _carry(net, product, made)
    _report(net, product, parameters, folded, margin, channel, before, keep, found)
    _rebind(net, rows, folded, product, top)
    for row in rows:
        if row.learned is not None:
            _without_clamp(net, row.learned)
    net.replace(product, [made])
    for layer in folded:
        net.drop_tops(layer, 1)
        net.replace(layer, [])
    if not keep:
        for layer in [*before.between, before.norm]:
            net.replace(layer, [])


def _margin_of(net, margin):
    if margin is None:
        return Margin()
    try:
        found = MARGINS[margin.type](margin.message)
        if len(margin.message.top) > 1:
            reader = net.reader_of(margin, 1)
            if reader:
                raise Refused(f"layer '{reader}' reads its second top")
            found.why.append("the second top goes")
    except Refused as error:
        net.refuse(margin, margin.type, str(error))
        raise Refused(f"layer '{margin.name}' ({margin.type}) after it cannot be") from error
    return found


def _post_scale(net, rows, found):
    """The constant that all rows multiply the logits by; None where it has to stay a layer."""
    products = []
    for row in rows:
        value = 1.0
        for _, factor in row.constants:
            value *= factor
        only_order = all(reader.type in ORDER_ONLY for reader, *_ in row.beside)
        if row.constants or not only_order or row.learned is not None:
            products.append(value)
    products = set(products)
    if len(products) > 1 or not all(value > 0 for value in products):
        return None
    value = products.pop() if products else 1.0
    order = all(
        reader.type in ORDER_ONLY or factor == value
        for row in rows
        for reader, _, _, _, factor, _ in row.beside
    )
    return value if order else None


def _top(product, rows, folded) -> str:
    """The name of the logits: that of the last layer that goes, in the net that is trained."""
    rows = sorted(rows, key=lambda row: not row.net.train)
    gone = set(map(id, folded))
    name = product.message.top[0]
    row = rows[0]
    for layer in (row.margin, row.channel, *[layer for layer, _ in row.constants]):
        if layer is not None and id(layer) in gone:
            name = layer.message.top[0]
    order = [layer for layer in row.net.layers if id(layer) in gone]
    return order[-1].message.top[0] if order else name


def _check_beside(rows, folded, post, channel) -> None:
    """Whatever else reads the logits must not tell the new ones from the old."""
    for row in rows:
        has_channel = row.channel is not None
        for reader, _, after_margin, after_channel, _, _ in row.beside:
            if reader.type in ORDER_ONLY:
                continue
            if row.margin is not None and not after_margin and row.net.train:
                raise Refused(
                    f"layer '{reader.name}' ({reader.type}) reads the logits without the "
                    "margin in TRAIN"
                )
            if has_channel and not after_channel:
                raise Refused(
                    f"layer '{reader.name}' ({reader.type}) reads the cosines before "
                    f"layer '{channel.name}' (ChannelScale)"
                )


def _features(net, product, before, channel):
    """The blob to read, and whether the norm has to stay because others read it."""
    norm = before.norm
    chain = {id(product), id(channel), *map(id, before.between)}
    outside = [
        reader
        for layer in [norm, *before.between]
        for top in range(len(layer.message.top))
        for reader, _ in net.graph.readers(layer, top)
        if id(reader) not in chain
    ]
    raw = norm.message.bottom[0]
    same = all(
        _same(one.maker_before(norm, raw), one.maker_before(product, raw), norm)
        for one in net.graph.having(product)
    )
    if channel is not None and (outside or not same):
        who = outside[0].name if outside else norm.name
        raise Refused(f"layer '{who}' needs the unit features, the logits their length")
    source = net.graph.maker(norm, 0)
    place = list(source.message.top).index(raw) if source is not None else 0
    inside = source is not None and any(
        raw in reader.message.top
        for reader, _ in net.graph.readers(source, place)
        if reader is not norm
    )
    if outside or not same or inside:
        return product.message.bottom[0], True
    return raw, False


def _same(before, now, norm) -> bool:
    """Whether a blob is made by the same layer still; a norm in place does not count."""
    if before is None or now is None:
        return before is now
    return (before[0] is now[0] and before[1] == now[1]) or now[0] is norm


def _report(net, product, parameters, folded, margin, channel, before, keep, found) -> None:
    shown = ", ".join(
        name if value is True else f"{name} {value:.7g}" for name, value in parameters.items()
    )
    target = f"layer '{product.name}'"
    shown = f" with {shown}" if shown else ""
    net.changed(
        product,
        _words(product),
        f"MarginInnerProduct{shown}",
        "the exact gradient of unit rows and margin",
    )
    if not keep:
        for layer in before.between:
            net.changed(layer, layer.type, f"in {target}", "a constant")
        why = (
            "the feature keeps its length, with the norm's gradient"
            if channel
            else "normalize_features"
        )
        net.changed(before.norm, before.norm.type, f"in {target}", why)
    for layer in folded:
        if layer is margin:
            named = f"angular_margin {found.angular:.7g}" if found.angular else ""
            if found.cosine:
                named += (" and " if named else "") + f"cosine_margin {found.cosine:.7g}"
            net.changed(
                layer, layer.type, f"{named or 'no margin'} of {target}", "; ".join(found.why)
            )
        elif layer is channel:
            net.changed(layer, layer.type, f"in {target}", "logits of features with their length")
        else:
            net.changed(layer, layer.type, f"scale of {target}", "a constant")


def _rebind(net, rows, folded, product, top) -> None:
    """Readers of blobs that are gone read the new logits."""
    gone = {id(product), *map(id, folded)}
    for row in rows:
        for reader, place, after_margin, _, _, at in row.beside:
            if id(at) not in gone or id(reader) in gone:
                continue
            old = reader.message.bottom[place]
            if reader.type == "Accuracy" and not after_margin and row.margin and row.net.train:
                net.changed(
                    reader,
                    f"Accuracy of '{old}'",
                    f"of '{top}'",
                    "in TRAIN it shows the accuracy with the margin, in TEST without",
                )
            elif old != top:
                net.changed(
                    reader,
                    f"{reader.type} of '{old}'",
                    f"of '{top}'",
                    "the new layer's logits have no margin in TEST"
                    if not row.net.train
                    else "the same order",
                )
            if old != top:
                net.rename_bottom(reader, place, top)
        following = row.learned
        if following is not None and following.message.bottom[0] != top:
            net.rename_bottom(following, 0, top)
        if row.constants and id(row.constants[0][0]) not in gone:
            first = row.constants[0][0]
            if first.message.bottom[0] != top:
                net.rename_bottom(first, 0, top)


def _without_clamp(net, layer) -> None:
    given = layer.message.scale_param
    if scales.clamps(given):
        given.ClearField("min_value")
        given.ClearField("max_value")
        net.touch(layer)
        net.changed(
            layer, "Scale with min_value or max_value", "Scale", "learned, without the clamp"
        )
