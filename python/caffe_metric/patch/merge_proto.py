"""Our fields and messages into a tree's caffe.proto, by its structure."""

from __future__ import annotations

from dataclasses import dataclass, field

from caffe_metric.patch.clash import Clash
from caffe_metric.patch.compatible import same_field, same_message
from caffe_metric.patch.merge_message import free_number, merge_message
from caffe_metric.patch.proto import Block, Field, File, Ranges
from caffe_metric.patch.proto_parser import ProtoError, parse
from caffe_metric.patch.schema_names import Place, Schema, scope_names, taken_number, taken_ranges
from caffe_metric.patch.text import Edit, line_of, line_start, newline_of, with_newlines
from caffe_metric.support.errors import UserError
from caffe_metric.support.strings import without_prefix

MESSAGE = "LayerParameter"
_TITLE = "The layers of caffe-metric; added by `caffe-metric patch`."


@dataclass
class ProtoPlan:
    """Edits of caffe.proto, with what they solve and what they change.

    replaced: names of the tree's messages and fields that ours take the place of.
    """

    edits: list[Edit] = field(default_factory=list)
    clashes: list[Clash] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)


def parse_file(path: str, text: str) -> File:
    try:
        return parse(text)
    except ProtoError as error:
        message, offset = error.args
        raise UserError(f"{path}:{line_of(text, offset)}: {message}") from None


def merge_proto(fragment_text: str, schema: Schema) -> ProtoPlan:
    """Plans the merge. Its edits solve the clashes, where they can: --replace."""
    return _Merger(parse(fragment_text), schema).plan()


class _Merger:
    def __init__(self, fragment: File, schema: Schema):
        self.fragment = fragment
        self.schema = schema
        self.ours = fragment.blocks("message", MESSAGE)[0]
        self.messages = [b for b in fragment.blocks("message") if b.name != MESSAGE]
        self.theirs = self._layer_parameter()
        self.given: set[int] = set()  # numbers that fields of ours got instead of their own
        self.result = ProtoPlan()

    def plan(self) -> ProtoPlan:
        messages = [self._message(message) for message in self.messages]
        fields = [self._field(mine) for mine in self.ours.fields()]
        self._reserved_names()
        self._end_of_file([text for text in messages if text])
        self._end_of_message([text for text in fields if text])
        return self.result

    def _layer_parameter(self) -> Block:
        found = self.schema.file.blocks("message", MESSAGE)
        if not found:
            raise UserError(f"{self.schema.main}: it has no message {MESSAGE}")
        kind = found[0].field_named("type")
        if kind is None or kind.type != "string":
            line = line_of(self.schema.file.text, found[0].start)
            raise UserError(
                f"{self.schema.main}:{line}: {MESSAGE} is of an older generation: "
                "its `type` is no string"
            )
        if self.schema.file.package != "caffe":
            raise UserError(f"{self.schema.main}: its package is not caffe")
        return found[0]

    # --- messages

    def _message(self, ours: Block) -> str:
        """The text to add, or "" where it is there already or takes the place of the tree's."""
        places = self.schema.top_level(ours.name)
        same = [p for p in places if _is_message(p) and same_message(ours, p.node)]
        if same:
            return ""
        theirs = []
        for place in places:
            here = place.path == self.schema.main and _is_message(place)
            what = f"{_kind(place)} {ours.name} is there already, and is not ours"
            self._clash(place, what, fatal=not here)
            theirs += [place] if here else []
        for use in self.schema.uses_inside(ours.name) if theirs else ():
            inner = use.node.type.split(f"{ours.name}.", 1)[1]
            if not ours.blocks(name=inner.split(".")[0]):
                self._clash(
                    use, f"{use.node.name} uses {ours.name}.{inner}, which ours has not", True
                )
        merged = merge_message(self.fragment, ours, self._counterparts(ours, theirs), self.schema)
        self.result.warnings += merged.warnings
        if not theirs:
            return self._lead(ours) + merged.text
        self._put(theirs[0].node, merged.text)
        self.result.replaced.append(ours.name)
        return ""

    def _counterparts(self, ours: Block, theirs: list[Place]) -> list[Block]:
        """The tree's messages whose data ours will read: of its name, or of its fields' types."""
        found = [place.node for place in theirs]
        for mine in self.ours.fields():
            other = self.theirs.field_named(mine.name)
            place = self.schema.type(other.type, self.theirs) if other else None
            if mine.type == ours.name and place and place.node.kind in ("message", "group"):
                found += [place.node] if place.node not in found else []
        return found

    # --- fields

    def _field(self, mine: Field) -> str:
        self._check_scope(mine)
        other = self.theirs.field_named(mine.name)
        if other is None:
            return self._lead(mine) + self._render(mine, self._own_number(mine))
        if not same_field(mine, other) or self._shadow(mine):
            self._replace_field(mine, other)
        return ""

    def _replace_field(self, mine: Field, other: Field) -> None:
        """Ours with the number of the tree's; if that is no message, with ours, and it is kept."""
        kind = self.schema.type(other.type, self.theirs)
        message = kind is not None and kind.node.kind == "message"
        self._clash(
            Place(self.schema.main, self.schema.file, other),
            f"field {mine.name} is there already, as {other.type} with number {other.number}",
            fatal=not message and (other.oneof or other.type.lower() == other.name),
        )
        text = self._render(mine, other.number, other.oneof)
        if not message and other.number != mine.number:
            text = f"reserved {other.number};\n  " + self._render(mine, self._own_number(mine))
            self.result.warnings.append(
                f"{mine.name} = {other.number} is of type {other.type} in this tree: "
                "the number is reserved, and layers do not see it any more"
            )
        self._put(other, text)
        self.result.replaced.append(mine.name)

    def _own_number(self, mine: Field) -> int:
        """Our number, or a free one where the tree has given it away."""
        place = taken_number(self.schema, self.theirs, mine.number, but=mine.name)
        if place is None:
            return mine.number
        self._clash(place, f"number {mine.number} of {mine.name} is taken by {_describe(place)}")
        number = self._free_number(mine.number)
        self.given.add(number)
        self.result.warnings.append(
            f"{mine.name} has number {number} in this tree, not {mine.number}"
        )
        return number

    def _free_number(self, wanted: int) -> int:
        extensions = self.schema.extensions_of(MESSAGE)
        numbers = {f.number for f in self.ours.fields()} | self.given
        numbers |= {place.node.number for place in extensions}
        taken = taken_ranges(self.theirs) + [(number, number) for number in numbers]
        return free_number(taken, wanted)

    def _check_scope(self, mine: Field) -> None:
        """Names that are no fields, but stand in the way of ours."""
        names = scope_names(self.theirs)
        for name, node in names.items():
            place = Place(self.schema.main, self.schema.file, node)
            if name == mine.name:
                self._clash(place, f"the name {name} is taken in {MESSAGE}", fatal=True)
            elif name == mine.type:
                self._clash(place, f"{MESSAGE} has a nested {_kind(place)} {name}")

    def _reserved_names(self) -> None:
        ours = {mine.name for mine in self.ours.fields()}
        for part in self.theirs.ranges():
            taken = [name for name in part.names if name in ours]
            if taken:
                place = Place(self.schema.main, self.schema.file, part)
                self._clash(place, f"reserved in {MESSAGE}: {', '.join(taken)}")
                left = ", ".join(f'"{name}"' for name in part.names if name not in ours)
                self._put(part, f"reserved {left};" if left else "")

    def _shadow(self, mine: Field) -> bool:
        return bool(self.theirs.blocks(name=mine.type))

    def _render(self, mine: Field, number: int, oneof: bool = False) -> str:
        """Our field's statement; its type with the package, where a nested one has its name."""
        text = self.fragment.text
        head = text[mine.start : mine.number_span[0]]
        if self._shadow(mine):
            head = head.replace(mine.type, f".{self.schema.file.package}.{mine.type}", 1)
        if oneof:
            head = without_prefix(head, mine.label).lstrip()
        return head + str(number) + text[mine.number_span[1] : mine.end]

    # --- text

    def _lead(self, node) -> str:
        """The node's comments and indent in the fragment."""
        return self.fragment.text[self.fragment.lead(node) : node.start]

    def _put(self, node, text: str) -> None:
        newline = newline_of(self.schema.file.text)
        self.result.edits.append(Edit(node.start, node.end, with_newlines(text, newline)))

    def _end_of_message(self, fields: list[str]) -> None:
        if not fields:
            return
        text, close = self.schema.file.text, self.theirs.close
        newline = newline_of(text)
        block = "\n".join([f"\n  // {_TITLE}", *fields, ""])
        start = line_start(text, close)
        if text[start:close].strip():
            self.result.edits.append(Edit(close, close, with_newlines("\n" + block, newline)))
        else:
            self.result.edits.append(Edit(start, start, with_newlines(block, newline)))

    def _end_of_file(self, messages: list[str]) -> None:
        if not messages:
            return
        text = self.schema.file.text
        block = "\n\n".join([f"\n// {_TITLE}", *messages]) + "\n"
        if text and not text.endswith("\n"):
            block = "\n" + block
        edit = Edit(len(text), len(text), with_newlines(block, newline_of(text)))
        self.result.edits.append(edit)

    def _clash(self, place: Place, what: str, fatal: bool = False) -> None:
        self.result.clashes.append(Clash(place.path, place.line, what, fatal))


def _is_message(place: Place) -> bool:
    return isinstance(place.node, Block) and place.node.kind == "message"


def _kind(place: Place) -> str:
    return place.node.kind if isinstance(place.node, Block) else "the name"


def _describe(place: Place) -> str:
    node = place.node
    if isinstance(node, Ranges):
        return f"`{node.kind}`"
    return f"field {node.name}"
