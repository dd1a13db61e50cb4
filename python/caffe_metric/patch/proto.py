"""The parts of a .proto file that the patcher asks about, each with its place in the text."""

from __future__ import annotations

from dataclasses import dataclass, field

from caffe_metric.patch.tokens import Token

MAX_NUMBER = 2**29 - 1


@dataclass
class Node:
    """A part of the file: text[start:end], comments before it excluded."""

    start: int
    end: int = 0


@dataclass
class Field(Node):
    label: str = ""
    type: str = ""
    name: str = ""
    number: int = 0
    number_span: tuple[int, int] = (0, 0)
    options: dict[str, str] = field(default_factory=dict)
    oneof: bool = False


@dataclass
class EnumValue(Node):
    name: str = ""
    number: int = 0


@dataclass
class Ranges(Node):
    """`reserved` or `extensions`: inclusive ranges of numbers, and names."""

    kind: str = ""
    numbers: list[tuple[int, int]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


@dataclass
class Block(Node):
    """A message, group, enum, oneof, extend or service; the file itself has kind "file"."""

    kind: str = ""
    name: str = ""
    open: int = 0  # offset after the opening brace
    close: int = 0  # offset of the closing brace
    children: list[Node] = field(default_factory=list)

    def blocks(self, kind: str = "", name: str = "") -> list[Block]:
        """Direct children; a group counts as a message."""
        return [
            child
            for child in self.children
            if isinstance(child, Block)
            and (not kind or child.kind == kind or (kind, child.kind) == ("message", "group"))
            and (not name or child.name == name)
        ]

    def fields(self) -> list[Field]:
        """The fields of a message, those of its oneofs included."""
        found = []
        for child in self.children:
            if isinstance(child, Field):
                found.append(child)
            elif isinstance(child, Block) and child.kind == "oneof":
                found += child.fields()
        return found

    def field_named(self, name: str) -> Field | None:
        return next((f for f in self.fields() if f.name == name), None)

    def ranges(self) -> list[Ranges]:
        return [child for child in self.children if isinstance(child, Ranges)]

    def values(self) -> list[EnumValue]:
        return [child for child in self.children if isinstance(child, EnumValue)]

    def walk(self):
        """All blocks below this one, in order."""
        for block in self.blocks():
            yield block
            yield from block.walk()


@dataclass
class File(Block):
    text: str = ""
    package: str = ""
    comments: list[Token] = field(default_factory=list)

    def lead(self, node: Node) -> int:
        """Where the comments begin that stand on lines of their own right above the node."""
        start = self.text.rfind("\n", 0, node.start) + 1
        if self.text[start : node.start].strip():
            return node.start
        for comment in reversed([c for c in self.comments if c.end <= start]):
            above = self.text.rfind("\n", 0, comment.start) + 1
            apart = self.text[above : comment.start] + self.text[comment.end : start]
            if apart.strip() or apart.count("\n") > 1:
                break
            start = above
        return start

    def tail(self, node: Node) -> int:
        """The end of the node's last line, where only a comment follows on it."""
        end = self.text.find("\n", node.end)
        end = len(self.text) if end < 0 else end
        rest = self.text[node.end : end].strip()
        inside = any(node.end <= c.start < end < c.end for c in self.comments)
        return end if (not rest or rest.startswith(("//", "/*"))) and not inside else node.end
