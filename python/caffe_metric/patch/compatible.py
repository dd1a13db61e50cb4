"""Whether two definitions are the same, or can read each other's models."""

from __future__ import annotations

from caffe_metric.patch.proto import Block, Field
from caffe_metric.support.strings import without_prefix

# These travel as varints, and small numbers mean the same in all of them.
_VARINTS = {"int32", "int64", "uint32", "uint64", "bool"}


def same_message(ours: Block, theirs: Block) -> bool:
    return _shape(ours) == _shape(theirs)


def same_field(ours: Field, theirs: Field) -> bool:
    return _field_shape(ours) == _field_shape(theirs) and not theirs.oneof


def readable(ours: Field, in_ours: Block, theirs: Field, enum_of_theirs: Block | None) -> bool:
    """Whether our field reads what their field wrote, with the same meaning.

    enum_of_theirs: the enum that their field's type names, if it is one.
    """
    if (ours.label == "repeated") != (theirs.label == "repeated"):
        return False
    enums = in_ours.blocks("enum", ours.type)
    if enums:
        if enum_of_theirs is None:
            return theirs.type in _VARINTS
        here = {value.name: value.number for value in enums[0].values()}
        there = {value.name: value.number for value in enum_of_theirs.values()}
        return all(here[name] == there[name] for name in here.keys() & there.keys())
    if ours.type in _VARINTS:
        return theirs.type in _VARINTS
    return _plain(ours.type) == _plain(theirs.type)


def default_of(field: Field) -> str:
    """The default as a text that compares: 1, 1.0 and 1e0 are one."""
    text = field.options.get("default", "")
    try:
        return repr(float(text))
    except ValueError:
        return text


def _plain(name: str) -> str:
    return without_prefix(without_prefix(name, "."), "caffe.")


def _field_shape(field: Field) -> tuple:
    return (field.name, field.number, field.label, _plain(field.type), default_of(field))


def _shape(block: Block) -> tuple:
    return (
        sorted(_field_shape(field) for field in block.fields()),
        sorted((value.name, value.number) for value in block.values()),
        sorted((inner.kind, inner.name, _shape(inner)) for inner in block.blocks()),
        sorted((r.kind, tuple(r.numbers), tuple(r.names)) for r in block.ranges()),
    )
