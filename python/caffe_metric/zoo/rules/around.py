"""Rows of layers around a product with unit rows: what stands before it, and what follows, in each
net of the file.

    Normalize -> InnerProduct { normalize } -> a margin -> ChannelScale -> Scale -> SoftmaxWithLoss

Each of them but the second may be missing, and each net (TRAIN, TEST, stages) has its own row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from caffe_metric.nets import roles
from caffe_metric.zoo.net import ORDER_ONLY
from caffe_metric.zoo.rules import norms, scales
from caffe_metric.zoo.rules.margins import MARGINS, Refused


class Beside(NamedTuple):
    """A layer that reads a blob of the row, and is no part of it.

    at: the layer of the row whose top it reads, as bottom `place`. after_margin, after_channel:
    whether these came before. factor: the product of the constants so far.
    """

    reader: object
    place: int
    after_margin: bool
    after_channel: bool
    factor: float
    at: object


@dataclass
class Row:
    """The layers of one net that follow the product, in order."""

    net: object
    margin: object = None
    channel: object = None
    constants: list = field(default_factory=list)  # (layer, factor)
    learned: object = None
    beside: list[Beside] = field(default_factory=list)


def row_after(net, one, product) -> Row:
    """What follows the product in one net."""
    row = Row(one)
    at, factor = product, 1.0
    while at is not None:
        readers = one.readers(at)
        chosen = [reader for reader, place in readers if place == 0 and _goes_on(net, row, reader)]
        following = chosen[0] if len(chosen) == 1 else None
        seen = row.margin is not None, row.channel is not None
        for reader, place in readers:
            if reader is not following:
                row.beside.append(Beside(reader, place, *seen, factor, at))
        at = following
        if at is None:
            break
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
            break
    return row


def order_only(row) -> bool:
    """Whether all that reads the logits asks for their order alone."""
    return row.learned is None and all(one.reader.type in ORDER_ONLY for one in row.beside)


def _goes_on(net, row, reader) -> bool:
    if reader.type in MARGINS:
        return row.margin is None and row.channel is None
    if reader.type == "ChannelScale":
        return row.channel is None
    return scales.constant(net, reader) is not None or scales.learns(reader)


def the_one(what, found):
    """The layer that all rows have, None where none has one."""
    distinct = {id(layer): layer for layer in found}
    if len(distinct) > 1:
        names = ", ".join(f"'{layer.name}'" if layer else "none" for layer in distinct.values())
        raise Refused(f"not one {what} in all nets of the file: {names}")
    return next(iter(distinct.values()), None)


def label_of(net, product, rows, margin) -> str:
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
class Before:
    """What stands before the product.

    norm: the layer that makes its features of one length, factor: that length. between: layers
    that only multiply. several: each net has a norm of its own; all give that length. learned: a
    Scale of such features, which may learn.
    """

    norm: object = None
    factor: float = 1.0
    between: list = field(default_factory=list)
    several: bool = False
    learned: object = None


def before(net, product) -> Before:
    found = Before()
    at = product
    while True:
        makers = net.graph.makers(at, 0)
        if not makers or any(maker.message.top[:1] != at.message.bottom[:1] for maker in makers):
            return found
        maker = makers[0]
        if all(norms.is_norm(net, one) for one in makers):
            if len({norms.factor(one) for one in makers}) == 1:
                found.norm, found.several = maker, len(makers) > 1
                found.factor *= norms.factor(maker)
            return found
        value = scales.constant(net, maker)
        if len(makers) > 1:
            return found
        if value is None or not value > 0:
            behind = net.graph.makers(maker, 0)
            if scales.learns(maker) and behind and all(norms.is_norm(net, one) for one in behind):
                found.learned = maker
            return found
        found.factor *= value
        found.between.append(maker)
        at = maker


def check_channel(net, channel, before) -> None:
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
