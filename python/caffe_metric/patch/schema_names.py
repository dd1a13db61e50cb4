"""Who has which name and number in a tree's .proto files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from caffe_metric.patch.proto import Block, Field, File, Node
from caffe_metric.patch.text import line_of
from caffe_metric.support.strings import without_prefix


@dataclass(frozen=True)
class Place:
    """A part of a file of the tree."""

    path: str
    file: File
    node: Node

    @property
    def line(self) -> int:
        return line_of(self.file.text, self.node.start)


class Schema:
    """All .proto files of a tree; `main` is caffe.proto."""

    def __init__(self, main: str, files: dict[str, File]):
        self.main = main
        self.files = files

    @property
    def file(self) -> File:
        return self.files[self.main]

    def top_level(self, name: str) -> list[Place]:
        """Definitions that hold this name in the package: types, services, values, extensions."""
        found = []
        for path, file in self.files.items():
            if file.package != self.file.package:
                continue
            for block in file.blocks():
                if block.kind == "enum":
                    held = [block, *block.values()]
                elif block.kind == "extend":
                    held = block.fields()
                else:
                    held = [block]
                found += [Place(path, file, node) for node in held if node.name == name]
        return found

    def type(self, name: str, scope: Block | None = None) -> Place | None:
        """The message or enum that a field's type means, looked up in the scope first."""
        short = without_prefix(without_prefix(name, "."), self.file.package + ".")
        nested = scope.blocks(name=short) if scope and not name.startswith(".") else []
        if nested:
            return Place(self.main, self.file, nested[0])
        outer, _, inner = short.partition(".")
        for place in self.top_level(outer):
            if isinstance(place.node, Block):
                if not inner:
                    return place
                deeper = place.node.blocks(name=inner)
                return Place(place.path, place.file, deeper[0]) if deeper else None
        return None

    def extensions_of(self, message: str) -> Iterator[Place]:
        """The fields that `extend message { ... }` adds, wherever it stands."""
        for path, file in self.files.items():
            for block in file.walk():
                if block.kind == "extend" and block.name.split(".")[-1] == message:
                    for field in block.fields():
                        yield Place(path, file, field)

    def uses_inside(self, message: str) -> Iterator[Place]:
        """Fields outside the message whose type is nested in it."""
        for path, file in self.files.items():
            for block in [file, *file.walk()]:
                for field in block.children:
                    if isinstance(field, Field) and f".{message}." in f".{field.type}":
                        yield Place(path, file, field)


def taken_number(schema: Schema, message: Block, number: int, but: str = "") -> Place | None:
    """Who has the field number in a message of caffe.proto, fields named `but` apart."""
    for field in message.fields():
        if field.number == number and field.name != but:
            return Place(schema.main, schema.file, field)
    for ranges in message.ranges():
        if any(first <= number <= last for first, last in ranges.numbers):
            return Place(schema.main, schema.file, ranges)
    return next((p for p in schema.extensions_of(message.name) if p.node.number == number), None)


def taken_ranges(message: Block) -> list[tuple[int, int]]:
    """The field numbers that a message has given away, as inclusive ranges."""
    fields = [(field.number, field.number) for field in message.fields()]
    return fields + [span for ranges in message.ranges() for span in ranges.numbers]


def scope_names(message: Block) -> dict[str, Node]:
    """The names in a message's scope that are no fields: nested types, oneofs, enum values."""
    names: dict[str, Node] = {}
    for block in message.blocks():
        if block.kind == "extend":
            names.update({field.name: field for field in block.fields()})
        else:
            names[block.name] = block
        if block.kind == "enum":
            names.update({value.name: value for value in block.values()})
    return names
