"""A row of layers with a margin, as one MarginInnerProduct.

What else reads a blob between the layers that go, Accuracy above all, reads the new layer's logits
from then on, as long as it asks for their order alone.
"""

from __future__ import annotations

from caffe_metric.zoo.net import ORDER_ONLY
from caffe_metric.zoo.rules.around import order_only
from caffe_metric.zoo.rules.margins import MARGINS, Margin, Refused
from caffe_metric.zoo.rules.products import carry, margin_product, words_of
from caffe_metric.zoo.rules.scales import without_clamp


def rewrite(net, product, given, rows, label, margin, channel, before, projection) -> None:
    """rows: what follows the product in each net. before: what stands in front of it."""
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
    post = _post_scale(rows)
    folded = [layer for layer in (margin, channel) if layer is not None]
    scale = before.factor
    if post is not None:
        scale *= post
        folded += [layer for row in rows for layer, _ in row.constants]
    folded = list({id(layer): layer for layer in folded}.values())
    if found.cosine:
        found.cosine /= before.factor
    top = _top(product, rows, folded)
    _check_beside(rows)
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
    gone = folded if keep else [*folded, *before.between, before.norm]
    made = margin_product(net, product, given, bottom, label, top, gone, **parameters)
    carry(net, product.name, made, counted=False)
    _report(net, product, parameters, folded, margin, channel, before, keep, found)
    _rebind(net, rows, folded, product, top)
    for row in rows:
        if row.learned is not None:
            without_clamp(net, row.learned)
    net.replace(product, [made])
    for layer in folded:
        net.drop_tops(layer, 1)
        net.replace(layer, [])
    if not keep:
        net.drop_tops(before.norm, 1)
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


def _post_scale(rows):
    """The constant that all rows multiply the logits by; None where it has to stay a layer."""
    products = []
    for row in rows:
        value = 1.0
        for _, factor in row.constants:
            value *= factor
        if row.constants or not order_only(row):
            products.append(value)
    products = set(products)
    if len(products) > 1 or not all(value > 0 for value in products):
        return None
    value = products.pop() if products else 1.0
    order = all(
        one.reader.type in ORDER_ONLY or one.factor == value for row in rows for one in row.beside
    )
    return value if order else None


def _top(product, rows, folded) -> str:
    """The name of the logits: that of the last layer that goes, in the net that is trained."""
    gone = set(map(id, folded))
    trained = min(rows, key=lambda row: not row.net.train).net
    last = [layer for layer in [product, *trained.layers] if layer is product or id(layer) in gone]
    return last[-1].message.top[0]


def _check_beside(rows) -> None:
    """Whatever else reads the logits must not tell the new ones from the old."""
    for row in rows:
        for one in row.beside:
            reader = one.reader
            if reader.type in ORDER_ONLY:
                continue
            if row.margin is not None and not one.after_margin and row.net.train:
                raise Refused(
                    f"layer '{reader.name}' ({reader.type}) reads the logits without the "
                    "margin in TRAIN"
                )
            if row.channel is not None and not one.after_channel:
                raise Refused(
                    f"layer '{reader.name}' ({reader.type}) reads the cosines before "
                    f"layer '{row.channel.name}' (ChannelScale)"
                )


def _features(net, product, before, channel):
    """The blob to read, and whether the norm has to stay because others read it."""
    norm = before.norm
    if before.several:
        if channel is not None:
            raise Refused("each net has a norm of its own before it")
        return product.message.bottom[0], True
    chain = {id(product), id(channel), *map(id, before.between)}
    outside = [
        reader
        for layer in [norm, *before.between]
        for top in range(len(layer.message.top))
        for reader, _ in net.graph.readers(layer, top)
        if id(reader) not in chain and not (top and reader.type == "Silence")
    ]
    raw = norm.message.bottom[0]
    same = all(
        _same(one.maker_before(norm, raw), one.maker_before(product, raw), norm)
        for one in net.graph.having(product)
    )
    source = net.graph.maker(norm, 0)
    place = list(source.message.top).index(raw) if source is not None else 0
    inside = source is not None and any(
        raw in reader.message.top
        for reader, _ in net.graph.readers(source, place)
        if reader is not norm
    )
    keep = bool(outside) or not same or inside
    if keep and channel is not None:
        who = outside[0].name if outside else norm.name
        raise Refused(f"layer '{who}' needs the unit features, the logits their length")
    if keep:
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
        words_of(product),
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
        for one in row.beside:
            reader, place = one.reader, one.place
            if id(one.at) not in gone or id(reader) in gone:
                continue
            old = reader.message.bottom[place]
            before_margin = row.margin is not None and not one.after_margin
            if reader.type == "Accuracy" and before_margin and row.net.train:
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
