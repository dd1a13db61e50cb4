"""Whether a net speaks another fork's words: for the commands that then point to `modernize`."""

from __future__ import annotations

from caffe_metric.nets import prototxt, upgrade
from caffe_metric.zoo import dialect, rules


def foreign(text: str) -> str:
    """LINE: and what is another fork's, of the first such thing in a net's text; "" without one."""
    try:
        entries = prototxt.parse(upgrade.upgraded(text))
    except prototxt.SyntaxFault:
        return ""
    known = dialect.load()
    plain = known.plain.DESCRIPTOR
    for entry in entries:
        if entry.name == "mem_param" and "mem_param" not in plain.fields_by_name:
            return f"{entry.line}: mem_param"
        if entry.name != "layer" or entry.fields is None:
            continue
        name, kind = entry.text("name"), entry.text("type")
        if rules.recognised(kind):
            return f"{entry.line}: layer '{name}': type {kind}"
        own = plain.fields_by_name["layer"].message_type
        found = _field(entry, own, known.layer.DESCRIPTOR)
        if found:
            return f"{found.line}: layer '{name}': field {found.name}"
    return ""


def _field(entry, plain, forks):
    """The first field that only forks have; None without one."""
    for child in entry.fields:
        field = forks.fields_by_name.get(child.name)
        if field is None:
            continue
        own = plain.fields_by_name.get(child.name)
        if own is None:
            return child
        if child.fields is not None and field.message_type is not None and own.message_type:
            found = _field(child, own.message_type, field.message_type)
            if found is not None:
                return found
    return None
