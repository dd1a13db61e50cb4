"""Names, types, defaults and meaning of the layers' parameters, of proto/caffe_metric.proto.

The proto file is the one truth about parameters. This module reads what protoc made of it, so that
Python knows the same names and defaults as C++ without a list of its own:

    >>> schema.message("TripletLossParameter").field("margin").default
    1.0
    >>> schema.message("TripletLossParameter").parse({"margin": 0.2, "losstype": "RATIO"}).losstype
    'RATIO'
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace

from caffe_metric import suite
from caffe_metric.nets import descriptors, wire

INTEGER_RANGES = {
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint64": (0, 2**64 - 1),
}

# Names of descriptor.proto's scalar types.
TYPES = {
    1: "double",
    2: "float",
    3: "int64",
    4: "uint64",
    5: "int32",
    8: "bool",
    9: "string",
    13: "uint32",
}

# LossParameter.NormalizationMode of Caffe; Python layers read it from param_str.
NORMALIZATIONS = ("FULL", "VALID", "BATCH_SIZE", "NONE")


@dataclass(frozen=True)
class Enum:
    """An enum: its values as {name: number}."""

    name: str
    values: Mapping[str, int]
    comment: str = ""
    meanings: Mapping[str, str] = field(default_factory=dict)

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
    """The schema of proto/caffe_metric.proto."""
    return read(descriptors.serialised())


def message(name: str) -> Message:
    """The message of that name, e.g. "RankParameter"."""
    return load().messages[name]


def of_layer(row: suite.Layer) -> Message:
    """All parameters of a layer, those of its own message first."""
    names = dict.fromkeys([row.message, *(name for _, name in row.also)])
    parts = [message(name) for name in names if name]
    fields = tuple(field for part in parts for field in part.fields)
    enums = {name: enum for part in parts for name, enum in part.enums.items()}
    return Message(row.message, fields, enums)


def refuse_unknown(values: Mapping, known: list[str]) -> None:
    """Raises ValueError for the first key of `values` that is not in `known`."""
    for name in values:
        if name in known:
            continue
        near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"
        raise ValueError(f"unknown parameter '{name}': {hint}")


def read(descriptor_set: bytes) -> Schema:
    """The schema of this project's file in a serialised FileDescriptorSet with source info."""
    files = map(wire.fields, wire.fields(descriptor_set)[FILES])
    file = next(file for file in files if _text(file, NAME) == descriptors.OURS)
    comments = {}
    for place in wire.fields(file[SOURCE_INFO][0])[LOCATIONS]:
        found = wire.fields(place)
        path = tuple(wire.varints(found.get(PATH, [b""])[0]))
        comments[path] = " ".join(_text(found, LEADING_COMMENTS).split())
    messages = {}
    for number, one in enumerate(file[MESSAGES]):
        made = _message(wire.fields(one), (MESSAGES, number), comments)
        messages[made.name] = made
    layer = messages.pop(descriptors.FIELDS, Message("LayerParameter", ()))
    return Schema(messages, layer.fields)


# Field numbers of descriptor.proto; NAME is that of a file, a message, a field, an enum.
FILES, MESSAGES, SOURCE_INFO, LOCATIONS, PATH, LEADING_COMMENTS = 1, 4, 9, 1, 1, 3
NAME, FIELDS, ENUMS, VALUES, VALUE_NUMBER = 1, 2, 4, 2, 2
NUMBER, LABEL, TYPE, TYPE_NAME, DEFAULT, REPEATED = 3, 4, 5, 6, 7, 3


def _text(found: dict, number: int) -> str:
    return found.get(number, [b""])[0].decode("utf-8")


def _message(one: dict, path, comments) -> Message:
    enums = {}
    for number, enum in enumerate(map(wire.fields, one.get(ENUMS, ()))):
        place = (*path, ENUMS, number)
        values, meanings = {}, {}
        for k, value in enumerate(map(wire.fields, enum[VALUES])):
            name = _text(value, NAME)
            values[name] = value.get(VALUE_NUMBER, [0])[0]
            meanings[name] = comments.get((*place, VALUES, k), "")
        name = _text(enum, NAME)
        enums[name] = Enum(name, values, comments.get(place, ""), meanings)
    fields = tuple(
        _field(wire.fields(field), enums, comments.get((*path, FIELDS, number), ""))
        for number, field in enumerate(one.get(FIELDS, ()))
    )
    return Message(_text(one, NAME), fields, enums, comments.get(path, ""))


def _field(found: dict, enums, comment: str) -> Field:
    kind = _text(found, TYPE_NAME).rpartition(".")[2] or TYPES[found[TYPE][0]]
    made = Field(
        _text(found, NAME),
        kind,
        found[NUMBER][0],
        repeated=found[LABEL][0] == REPEATED,
        enum=enums.get(kind),
        comment=comment,
    )
    if DEFAULT not in found:
        return made
    return dataclasses.replace(made, default=made.parse(_text(found, DEFAULT)))


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
