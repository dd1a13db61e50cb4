"""MarginInnerProduct's relatives: L-Softmax (LargeMarginInnerProduct), SmoothMarginInnerProduct,
AngularTriplet."""

from __future__ import annotations

from caffe_metric.nets import phases
from caffe_metric.zoo.rules.products import carry

FIELDS = {
    "LargeMarginInnerProduct": "largemargin_inner_product_param",
    "SmoothMarginInnerProduct": "smooth_margin_inner_product_param",
    "AngularTriplet": "angular_triplet_param",
    "MarginInnerProduct": "margin_inner_product_param",
}
_OWN = "margin_inner_product_param"
_WORDS = {
    "LargeMarginInnerProduct": ("normalize_weights false", "L-Softmax: the rows keep their length"),
    "SmoothMarginInnerProduct": (
        "ignore_negative_labels",
        "its code was never published; by its "
        "author's words a row with a negative label has no margin",
    ),
    "AngularTriplet": ("", "the same parameters"),
}


def rewrite(net, layer) -> None:
    """A layer of FIELDS but MarginInnerProduct."""
    message, was = layer.message, layer.type
    for field in (FIELDS[was], _OWN):
        if message.HasField(field):
            given = type(getattr(message, field))()
            given.CopyFrom(getattr(message, field))
            break
    else:
        net.refuse(layer, was, f"has no {FIELDS[was]}")
        return
    if given.temp_seqid_num:
        net.refuse(layer, was, _TEMPORARY)
        return
    given.ClearField("temp_seqid_num")
    reader = net.reader_of(layer, 2)
    if reader:
        net.refuse(layer, was, f"layer '{reader}' reads its third top")
        return
    words, why = _WORDS[was]
    why = [why]
    if was == "LargeMarginInnerProduct":
        given.normalize_weights = False
    elif was == "SmoothMarginInnerProduct":
        given.ignore_negative_labels = True
    partner = _partner(net, layer) if was == "LargeMarginInnerProduct" else None
    if was == "LargeMarginInnerProduct" and given.type and partner is None and _in_test(net, layer):
        given.margin_in_test = True
        words += ", margin_in_test"
        why.append("the published margin stands in TEST, too")
    made = net.new_layer(
        message.name, "MarginInnerProduct", message.bottom, message.top[:2], message
    )
    made.param.extend(message.param[:2])
    made.margin_inner_product_param.CopyFrom(given)
    if partner is not None:
        del made.include[:], made.exclude[:]
        _merge(net, layer, partner, made)
        why.append(
            f"one layer with '{partner.name}' of line {partner.line}, whose weights it "
            "shares: in TEST it has no margin"
        )
    carry(net, message.name, made)
    words = f"MarginInnerProduct with {words}" if words else "MarginInnerProduct"
    net.changed(layer, was, words, "; ".join(why))
    net.replace(layer, [made])


_TEMPORARY = "temp_seqid_num: classes that are made anew for the sequences of a batch"


def stays(net, layer) -> None:
    """A MarginInnerProduct of any tree."""
    message = layer.message
    given = message.margin_inner_product_param
    if given.temp_seqid_num:
        net.refuse(layer, "MarginInnerProduct", _TEMPORARY, layer.line_of(f"{_OWN}.temp_seqid_num"))
        return
    if given.HasField("temp_seqid_num"):
        given.ClearField("temp_seqid_num")
        net.touch(layer)
    net.stays(layer, "MarginInnerProduct", "its gradient is the exact one here")
    carry(net, message.name, message)


def _in_test(net, layer) -> bool:
    return phases.included(layer.message, phases.TEST)


def _partner(net, layer):
    """The layer of TEST that has the weights of this one of TRAIN, by its name or by param's."""
    message = layer.message
    if _in_test(net, layer) or not phases.included(message, phases.TRAIN):
        return None
    shared = message.param[0].name if message.param else ""
    for other in net.layers:
        one = other.message
        if other is layer or not _in_test(net, other) or phases.included(one, phases.TRAIN):
            continue
        same = one.name == message.name or (shared and one.param and one.param[0].name == shared)
        if not same or list(one.bottom[:1]) != list(message.bottom[:1]):
            continue
        if other.type == layer.type:
            alone = not getattr(one, FIELDS[other.type]).type
        else:
            alone = other.type == "InnerProduct" and not one.inner_product_param.bias_term
        labelled = all(name in _made(net, other) for name in message.bottom)
        if alone and labelled:
            return other
    return None


def _made(net, layer) -> set[str]:
    """The blobs that are there when a layer runs, in every net that has it."""
    nets = net.graph.having(layer)
    sets = [set(one.blobs_before(layer)) for one in nets]
    return set.intersection(*sets) if sets else set()


def _merge(net, layer, partner, made) -> None:
    """The layer of TEST goes; what read its tops reads this one's."""
    for place, old in enumerate(partner.message.top):
        new = made.top[place] if place < len(made.top) else None
        for reader, bottom in net.graph.readers(partner, place):
            if new is None:
                continue
            if old != new:
                net.rename_bottom(reader, bottom, new)
    net.changed(partner, partner.type, f"in layer '{layer.name}'", "they share their weights")
    net.replace(partner, [])
