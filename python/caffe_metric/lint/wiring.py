"""What Caffe demands of any net: types, names, bottoms and tops that fit together."""

from __future__ import annotations

import difflib

from caffe_metric import suite
from caffe_metric.lint.view import View
from caffe_metric.nets import roles, schema
from caffe_metric.zoo import rules

OURS = frozenset(row.type for row in suite.NATIVE)


def check(view: View, layer) -> None:
    """All of them, for one layer."""
    _type(view, layer)
    _bottoms(view, layer)
    _tops(view, layer)
    _counts(view, layer)
    _messages(view, layer)
    if layer.include and layer.exclude:
        view.error(layer, "has both include and exclude rules: one of them only")
    if layer.propagate_down and len(layer.propagate_down) != len(layer.bottom):
        view.error(
            layer,
            f"has {len(layer.propagate_down)} propagate_down for {len(layer.bottom)} bottoms: "
            "none, or one a bottom",
        )


def _type(view, layer) -> None:
    if not layer.type:
        view.error(layer, "has no type")
        return
    if view.layer_types is None or layer.type in view.layer_types:
        return
    if layer.type in OURS:
        view.warning(
            layer,
            f"this machine's Caffe lacks {layer.type}: `caffe-metric patch` adds it, or take the "
            "Python layer",
        )
        return
    if rules.recognised(layer.type):
        view.error(
            layer,
            f"the type '{layer.type}' is another fork's: `caffe-metric modernize` reads this net",
        )
        return
    known = {*view.layer_types, *OURS}
    view.error(layer, f"no layer has the type '{layer.type}'{near(layer.type, known)}")


def _bottoms(view, layer) -> None:
    for name in layer.bottom:
        if name in view.makers:
            continue
        later = [other.name for other in view.layers if name in other.top]
        why = (
            f"; layer '{later[0]}' makes it only later"
            if later
            else near(name, view.makers) or "; no layer of this phase makes it"
        )
        view.error(layer, f"{view.state}: bottom '{name}' is unknown here{why}")


def _tops(view, layer) -> None:
    seen = set()
    for place, name in enumerate(layer.top):
        in_place = place < len(layer.bottom) and layer.bottom[place] == name
        if name in seen or (name in view.makers and not in_place):
            maker = view.makers.get(name)
            by = f" by layer '{maker.name}'" if maker is not None else ""
            view.error(layer, f"{view.state}: top '{name}' is made already{by}")
        seen.add(name)


def _counts(view, layer) -> None:
    row = roles.row_of(layer)
    if row is not None:
        for what, number, allowed in (
            ("bottoms", len(layer.bottom), row.bottom_counts),
            ("tops", len(layer.top), row.top_counts),
        ):
            if number not in allowed:
                text = str(allowed[0]) if len(allowed) == 1 else f"{allowed[0]} to {allowed[-1]}"
                view.error(layer, f"has {number} {what}, {row.type} takes {text}")
    tops = len(layer.top) or 1
    if layer.loss_weight and len(layer.loss_weight) != tops:
        view.error(
            layer,
            f"has {len(layer.loss_weight)} loss_weight for {tops} tops: none, or one each",
        )
    if row is None or not row.loss:
        return
    for weight in list(layer.loss_weight)[len(row.tops) :]:
        if weight:
            view.error(layer, f"loss_weight {weight:g} on a further top, which only reports")
    if layer.type == "Python" and not layer.loss_weight:
        view.error(
            layer, "a Python layer has no default weight: without loss_weight: 1 nothing is trained"
        )


def _messages(view, layer) -> None:
    """Parameters of ours on a layer of another type do nothing."""
    fields = {field.name for field in schema.load().layer_fields}
    row = suite.find(layer.type)
    if row is not None:
        fields -= {*row.messages, *row.older_fields}
    for name in sorted(fields):
        if layer.HasField(name):
            view.warning(layer, f"{name} is ignored: the layer's type is {layer.type}")


def near(name: str, known) -> str:
    """A question after the nearest known name, or nothing."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{found[0]}'?" if found else ""
