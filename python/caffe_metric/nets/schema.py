"""Names, types, defaults and meaning of the layers' parameters, read from proto/caffe_metric.proto.

The proto file is the one truth about parameters. This module parses it, so that Python knows the
same names and defaults as C++ without a list of its own:

    >>> schema.message("TripletLossParameter").field("margin").default
    1.0
    >>> schema.message("TripletLossParameter").parse({"margin": 0.2, "losstype": "RATIO"}).losstype
    'RATIO'
"""

from __future__ import annotations

import difflib
import functools
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace

from caffe_metric.support import paths

INTEGER_RANGES = {
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint64": (0, 2**64 - 1),
}

# LossParameter.NormalizationMode of Caffe; Python layers read it from param_str.
NORMALIZATIONS = ("FULL", "VALID", "BATCH_SIZE", "NONE")


@dataclass(frozen=True)
class Enum:
    """An enum: its values as {name: number}."""

    name: str
    values: Mapping[str, int]
    comment: str = ""

    def parse(self, value) -> str:
        """The name of an enum value that is given as a name or a number."""
        if isinstance(value, str) and value in self.values:
            return value
        if isinstance(value, str) and re.fullmatch(r"\d+", value):
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool):
            for name, number in self.values.items():
                if number == value:
                    return name
        known = ", ".join(f"{name} ({number})" for name, number in self.values.items())
        raise ValueError(f"{value!r} is none of {known}")


@dataclass(frozen=True)
class Field:
    """A field of a message. `default` is None where the proto file gives none."""

    name: str
    type: str
    number: int
    default: object = None
    repeated: bool = False
    enum: Enum | None = None
    comment: str = ""

    def parse(self, value):
        """`value` as the type of the field; floats are rounded to float32, as protobuf has them."""
        if self.enum is not None:
            return self.enum.parse(value)
        if self.type == "bool":
            return _parse_bool(value)
        if self.type == "float":
            return _parse_float(value)
        if self.type in INTEGER_RANGES:
            return _parse_integer(value, self.type)
        if self.type == "string":
            return str(value)
        return value  # a message of Caffe's own, such as FillerParameter


@dataclass(frozen=True)
class Message:
    """A message: its fields in the order of the file, and the enums declared inside it."""

    name: str
    fields: tuple[Field, ...]
    enums: Mapping[str, Enum] = field(default_factory=dict)
    comment: str = ""

    def field(self, name: str) -> Field:
        """The field of that name; KeyError where there is none."""
        for candidate in self.fields:
            if candidate.name == name:
                return candidate
        raise KeyError(name)

    def parse(self, values: Mapping) -> SimpleNamespace:
        """All fields as attributes: the given values, checked, and defaults for the rest.

        Raises ValueError for an unknown name (with the nearest known one) and for a value that the
        type of its field does not allow.
        """
        refuse_unknown(values, [known.name for known in self.fields])
        parsed = SimpleNamespace()
        for known in self.fields:
            value = known.default
            if known.name in values:
                try:
                    value = known.parse(values[known.name])
                except ValueError as error:
                    raise ValueError(f"{known.name}: {error}") from None
            setattr(parsed, known.name, value)
        return parsed


@dataclass(frozen=True)
class Schema:
    """All messages of the file, and the fields it adds to LayerParameter."""

    messages: Mapping[str, Message]
    layer_fields: tuple[Field, ...]


@functools.lru_cache(maxsize=1)
def load() -> Schema:
    """The schema of the installed proto/caffe_metric.proto."""
    return parse((paths.proto_dir() / "caffe_metric.proto").read_text(encoding="utf-8"))


def message(name: str) -> Message:
    """The message of that name, e.g. "RankParameter"."""
    return load().messages[name]


def refuse_unknown(values: Mapping, known: list[str]) -> None:
    """Raises ValueError for the first key of `values` that is not in `known`."""
    for name in values:
        if name in known:
            continue
        near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"
        raise ValueError(f"unknown parameter '{name}': {hint}")


def parse(text: str) -> Schema:
    """Parses proto2 text: messages with scalar, enum and message fields, nested enums, comments."""
    messages = _Parser(text).file()
    layer = messages.pop("LayerParameter", Message("LayerParameter", ()))
    return Schema(messages, layer.fields)


def float32(value: float) -> float:
    """`value` rounded to float32: what a float field of protobuf holds."""
    try:
        return struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)


def _parse_bool(value) -> bool:
    if isinstance(value, bool) or value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise ValueError(f"{value!r} is neither true nor false")


def _parse_float(value) -> float:
    # YAML 1.1 reads 1e-6, without a point, as a string.
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number):
        raise ValueError(f"{value!r} is not a number")
    return float32(number)


def _parse_integer(value, kind: str) -> int:
    lowest, highest = INTEGER_RANGES[kind]
    integer = value
    if not isinstance(value, int):
        try:
            integer = int(float(value)) if float(value).is_integer() else None
        except (TypeError, ValueError):
            integer = None
    if integer is None or isinstance(value, bool):
        raise ValueError(f"{value!r} is not an integer")
    if not lowest <= integer <= highest:
        raise ValueError(f"{integer} is out of the range of {kind}")
    return integer


class _Parser:
    """A recursive-descent parser of the part of proto2 that the fragment uses."""

    TOKEN = re.compile(
        r"""(?P<comment>//[^\n]*|/\*.*?\*/)
          | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
          | (?P<word>[-+]?[\w.]+(?:[-+]\d+)?)
          | (?P<mark>[{}\[\]=;,])
          | (?P<space>\s+)""",
        re.VERBOSE | re.DOTALL,
    )

    def __init__(self, text: str):
        self.tokens = []  # (token, the comment that stands before it)
        self.position = 0
        comment: list[str] = []
        start = 0
        while start < len(text):
            match = self.TOKEN.match(text, start)
            if match is None:
                line = text.count("\n", 0, start) + 1
                raise ValueError(f"proto: line {line}: unexpected {text[start]!r}")
            start = match.end()
            if match.lastgroup == "comment":
                comment.append(match.group().strip("/* \n"))
            elif match.lastgroup == "space":
                if match.group().count("\n") > 1:
                    comment = []  # an empty line ends a comment that belongs to nothing
            else:
                self.tokens.append((match.group(), " ".join(comment)))
                comment = []

    def next(self, expected: str | None = None) -> str:
        if self.position >= len(self.tokens):
            raise ValueError(f"proto: ends where {expected or 'more'} should follow")
        token = self.tokens[self.position][0]
        if expected is not None and token != expected:
            raise ValueError(f"proto: {token!r} where {expected!r} should stand")
        self.position += 1
        return token

    def file(self) -> dict[str, Message]:
        messages = {}
        while self.position < len(self.tokens):
            comment = self.tokens[self.position][1]
            word = self.next()
            if word == "message":
                parsed = self.message(comment)
                messages[parsed.name] = parsed
            else:  # syntax, package
                while self.next() != ";":
                    pass
        return messages

    def message(self, comment: str) -> Message:
        name = self.next()
        self.next("{")
        enums: dict[str, Enum] = {}
        declarations = []
        while True:
            about = self.tokens[self.position][1]
            word = self.next()
            if word == "}":
                break
            if word == "enum":
                parsed = self.enum(about)
                enums[parsed.name] = parsed
            else:
                declarations.append((word, *self.declaration(), about))
        fields = tuple(self.field(enums, *declared) for declared in declarations)
        return Message(name, fields, enums, comment)

    def enum(self, comment: str) -> Enum:
        name = self.next()
        self.next("{")
        values = {}
        while (word := self.next()) != "}":
            self.next("=")
            values[word] = int(self.next())
            self.next(";")
        return Enum(name, values, comment)

    def declaration(self):
        kind, name = self.next(), self.next()
        self.next("=")
        number = int(self.next())
        options = {}
        while (mark := self.next()) != ";":
            if mark in "[,":
                option = self.next()
                self.next("=")
                options[option] = self.next()
        return kind, name, number, options

    @staticmethod
    def field(enums, label, kind, name, number, options, comment) -> Field:
        if label not in ("optional", "required", "repeated"):
            raise ValueError(f"proto: {label!r} where a field's label should stand")
        enum = enums.get(kind)
        bare = Field(name, kind, number, None, label == "repeated", enum, comment)
        default = bare.parse(options["default"]) if "default" in options else None
        return Field(name, kind, number, default, label == "repeated", enum, comment)
