"""Reads a .proto file.

The parser is tolerant: what it does not know (services, options, newer syntax) it steps over, by
balanced braces.
"""

from __future__ import annotations

import re

from caffe_metric.patch.proto import MAX_NUMBER, Block, EnumValue, Field, File, Node, Ranges
from caffe_metric.patch.tokens import Token, tokenize
from caffe_metric.support.strings import without_prefix

_LABELS = ("optional", "required", "repeated")
_BLOCKS = ("message", "enum", "extend", "oneof", "service")
_STATEMENTS = ("option", "import", "syntax", "edition", "package", "rpc", "stream")


class ProtoError(Exception):
    """The text is no .proto file; args: the message and an offset."""


def parse(text: str) -> File:
    """Raises ProtoError where braces, strings or statements do not end."""
    tokens, comments = tokenize(text)
    root = File(start=0, end=len(text), kind="file", close=len(text), text=text, comments=comments)
    parser = _Parser(tokens, len(text))
    parser.body(root)
    root.package = parser.package
    return root


class _Parser:
    def __init__(self, tokens: list[Token], size: int):
        self.tokens = tokens
        self.at = 0
        self.size = size
        self.package = ""

    def peek(self, ahead: int = 0) -> str:
        place = self.at + ahead
        return self.tokens[place].text if place < len(self.tokens) else ""

    def next(self) -> Token:
        if self.at >= len(self.tokens):
            raise ProtoError("the file ends in the middle of a definition", self.size)
        self.at += 1
        return self.tokens[self.at - 1]

    def expect(self, text: str) -> Token:
        token = self.next()
        if token.text != text:
            raise ProtoError(f"{text!r} expected, {token.text!r} found", token.start)
        return token

    def body(self, block: Block) -> None:
        while self.at < len(self.tokens) and self.peek() != "}":
            child = self.statement(block)
            if child:
                block.children.append(child)
        if block.kind != "file":
            block.close = self.expect("}").start
            block.end = block.close + 1
        elif self.at < len(self.tokens):
            raise ProtoError("a closing brace too many", self.tokens[self.at].start)

    def statement(self, parent: Block) -> Node | None:
        word = self.peek()
        if word == ";":
            self.at += 1
            return None
        if word in _BLOCKS and self.opens_block():
            return self.block()
        if self.peek(1) != "=" or word in ("syntax", "edition"):
            if word in ("reserved", "extensions") and parent.kind in ("message", "group", "enum"):
                return self.ranges()
            if word in _STATEMENTS:
                return self.skip()
        if parent.kind == "enum":
            return self.enum_value()
        if parent.kind in ("message", "group", "extend", "oneof"):
            return self.field(parent)
        return self.skip()

    def opens_block(self) -> bool:
        """A block's keyword, a (dotted) name, a brace; else a field whose type or name it is."""
        ahead = 1
        while re.fullmatch(r"\.|[A-Za-z_]\w*", self.peek(ahead)):
            ahead += 1
        return self.peek(ahead) == "{" and ahead > 1

    def block(self) -> Block:
        keyword = self.next()
        name = ""
        while self.peek() != "{":
            name += self.next().text
        block = Block(start=keyword.start, kind=keyword.text, name=name, open=self.next().end)
        self.body(block)
        return block

    def field(self, parent: Block) -> Field | Block | None:
        first = self.tokens[self.at]
        label = self.next().text if self.peek() in _LABELS and self.peek(1) != "=" else ""
        if self.peek() == "group":
            return self.group(first.start, label, parent)
        words: list[Token] = []
        while self.peek() not in ("=", ";", "{", "}", ""):
            words.append(self.next())
        if self.peek() != "=" or len(words) < 2:
            return self.skip(first)
        self.next()
        number = self.next()
        found = Field(
            start=first.start,
            label=label,
            type="".join(w.text for w in words[:-1]),
            name=words[-1].text,
            number=_integer(number),
            number_span=(number.start, number.end),
            options=self.options(),
            oneof=parent.kind == "oneof",
        )
        found.end = self.expect(";").end
        return found

    def group(self, start: int, label: str, parent: Block) -> Block:
        """A group is a field and a message at once: the block holds the field as `.field`."""
        self.expect("group")
        name = self.next()
        self.expect("=")
        number = self.next()
        self.options()
        block = Block(start=start, kind="group", name=name.text, open=self.expect("{").end)
        self.body(block)
        parent.children.append(
            Field(
                start=start,
                end=block.end,
                label=label,
                type=name.text,
                name=name.text.lower(),
                number=_integer(number),
                number_span=(number.start, number.end),
                oneof=parent.kind == "oneof",
            )
        )
        return block

    def options(self) -> dict[str, str]:
        """`[default = 1, packed = true]` as texts; {} where there is none."""
        found: dict[str, str] = {}
        if self.peek() != "[":
            return found
        self.next()
        key, value, depth, after_equals = "", "", 1, False
        while depth:
            text = self.next().text
            depth += (text in "[{(") - (text in "]})")
            if (text == "," and depth == 1) or not depth:
                found[key] = value
                key, value, after_equals = "", "", False
            elif text == "=" and depth == 1 and not after_equals:
                after_equals = True
            elif after_equals:
                value += text
            else:
                key += text
        return found

    def enum_value(self) -> EnumValue | None:
        name = self.next()
        if self.peek() != "=":
            return self.skip(name)
        self.next()
        sign = -1 if self.peek() == "-" and self.next() else 1
        number = sign * _integer(self.next())
        self.options()
        return EnumValue(start=name.start, end=self.expect(";").end, name=name.text, number=number)

    def ranges(self) -> Ranges:
        keyword = self.next()
        found = Ranges(start=keyword.start, kind=keyword.text)
        while self.peek() not in (";", "["):
            token = self.next()
            if token.kind == "string":
                found.names.append(token.text.strip("\"'"))
            elif token.kind == "name":
                found.names.append(token.text)
            elif token.kind == "number":
                first = last = _integer(token)
                if self.peek() == "to":
                    self.next()
                    token = self.next()
                    last = MAX_NUMBER if token.text == "max" else _integer(token)
                found.numbers.append((first, last))
        self.options()
        found.end = self.expect(";").end
        return found

    def skip(self, first: Token | None = None) -> None:
        """Steps over a statement: to its semicolon, or over its braces."""
        package = first is None and self.peek() == "package"
        words = ""
        while True:
            token = self.next()
            words += token.text
            if token.text == "{":
                depth = 1
                while depth:
                    text = self.next().text
                    depth += (text == "{") - (text == "}")
                if self.peek() == ";":
                    self.next()
                return
            if token.text == ";":
                if package:
                    self.package = without_prefix(words, "package").rstrip(";")
                return


def _integer(token: Token) -> int:
    text = token.text.lower()
    try:
        if text.startswith("0x"):
            return int(text, 16)
        return int(text, 8 if len(text) > 1 and text.startswith("0") else 10)
    except ValueError:
        raise ProtoError(f"{token.text!r} is no field number", token.start) from None
