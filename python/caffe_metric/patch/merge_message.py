"""One of our messages in place of one of the tree's, in whose models it must still read."""

from __future__ import annotations

from dataclasses import dataclass, field

from caffe_metric.patch.compatible import default_of, readable
from caffe_metric.patch.proto import MAX_NUMBER, Block, Field, File
from caffe_metric.patch.schema_names import Schema, taken_ranges
from caffe_metric.patch.text import Edit, apply_edits

# protobuf keeps these for itself
_RESERVED_BY_PROTOBUF = (19000, 19999)


@dataclass
class Merged:
    text: str
    warnings: list[str] = field(default_factory=list)


def free_number(taken: list[tuple[int, int]], wanted: int) -> int:
    """`wanted`, or the next number above it in none of the ranges, or else the next one below."""
    ranges = sorted([*taken, _RESERVED_BY_PROTOBUF])
    number = wanted
    for first, last in ranges:
        if first <= number <= last:
            number = last + 1
    if number <= MAX_NUMBER:
        return number
    number = wanted
    for first, last in reversed(ranges):
        if first <= number <= last:
            number = first - 1
    if number < 1:
        raise ValueError("no field number is free")
    return number


def merge_message(fragment: File, ours: Block, theirs: list[Block], schema: Schema) -> Merged:
    """The text of our message, numbered so that data of `theirs` keep their meaning.

    A field of both keeps the number it has in the tree. A field that only we have keeps ours, or
    gets a free one where theirs uses that for something else. Fields that only theirs have are
    reserved, by number and name.
    """
    merged = Merged("")
    numbers = _numbers(ours, theirs, schema)
    edits = []
    for mine in ours.fields():
        if numbers[mine.name] != mine.number:
            span = mine.number_span
            edits.append(Edit(span[0], span[1], str(numbers[mine.name])))
            merged.warnings.append(
                f"{ours.name}.{mine.name} has number {numbers[mine.name]} in this tree, "
                f"not {mine.number}"
            )
    for message in theirs:
        for field_ in message.fields():
            merged.warnings += _difference(ours, field_, numbers)
    reserved = _reserved(ours, theirs, set(numbers.values()))
    if reserved:
        edits.append(Edit(ours.open, ours.open, reserved))
    start = ours.start
    edits = [Edit(e.start - start, e.end - start, e.text) for e in edits]
    merged.text = apply_edits(fragment.text[start : ours.end], edits)
    return merged


def _numbers(ours: Block, theirs: list[Block], schema: Schema) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for mine in ours.fields():
        for message in theirs:
            other = message.field_named(mine.name)
            free = other is not None and other.number not in numbers.values()
            if free and _reads(ours, mine, message, other, schema):
                numbers[mine.name] = other.number
                break
    taken = [span for message in theirs for span in taken_ranges(message)]
    new = [mine for mine in ours.fields() if mine.name not in numbers]
    above = max(
        [mine.number for mine in ours.fields()] + [f.number for m in theirs for f in m.fields()]
    )
    # first those that can keep our number, then those that cannot
    for mine in sorted(new, key=lambda mine: _inside(mine.number, taken)):
        used = taken + [(number, number) for number in numbers.values()]
        wanted = above + 1 if _inside(mine.number, used) else mine.number
        numbers[mine.name] = free_number(used, wanted)
    return numbers


def _inside(number: int, ranges: list[tuple[int, int]]) -> bool:
    return any(first <= number <= last for first, last in ranges)


def _reads(ours: Block, mine: Field, message: Block, other: Field, schema: Schema) -> bool:
    place = schema.type(other.type, message)
    enum = place.node if place and place.node.kind == "enum" else None
    return readable(mine, ours, other, enum)


def _difference(ours: Block, theirs: Field, numbers: dict[str, int]) -> list[str]:
    mine = ours.field_named(theirs.name)
    if mine is None:
        return [
            f"{ours.name}.{theirs.name} = {theirs.number} is not one of ours: number and name are "
            "reserved, and layers do not see it any more"
        ]
    if numbers[mine.name] != theirs.number:
        return [
            f"{ours.name}.{theirs.name} = {theirs.number} is of another type in this tree: "
            "its number is reserved"
        ]
    if default_of(mine) != default_of(theirs):
        was = theirs.options.get("default", "none")
        now = mine.options.get("default", "none")
        return [f"{ours.name}.{theirs.name} has the default {now}, it was {was}"]
    return []


def _reserved(ours: Block, theirs: list[Block], used: set[int]) -> str:
    """The statements that keep numbers and names of theirs from being used again."""
    ranges, extensions, names = set(), set(), set()
    for message in theirs:
        for field_ in message.fields():
            if field_.number not in used:
                ranges.add((field_.number, field_.number))
            names.add(field_.name)
        for part in message.ranges():
            (ranges if part.kind == "reserved" else extensions).update(part.numbers)
            names.update(part.names)
    names -= {field_.name for field_ in ours.fields()}
    lines = []
    if ranges:
        lines.append(f"  reserved {', '.join(_range(r) for r in _joined(ranges))};")
    if extensions:
        lines.append(f"  extensions {', '.join(_range(r) for r in _joined(extensions))};")
    if names:
        quoted = ", ".join(f'"{name}"' for name in sorted(names))
        lines.append(f"  reserved {quoted};")
    if not lines:
        return ""
    return "\n".join(
        ["\n  // Of the tree's own message, before caffe-metric's took its place.", *lines]
    )


def _joined(ranges: set[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined


def _range(ends: tuple[int, int]) -> str:
    first, last = ends
    if first == last:
        return str(first)
    return f"{first} to {'max' if last == MAX_NUMBER else last}"
