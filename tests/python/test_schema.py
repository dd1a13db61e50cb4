"""The schema of proto/caffe_metric.proto, and the checks of parameters that are built on it."""

from __future__ import annotations

import shutil
import sys

import pytest
from caffe_metric.nets import descriptors, schema
from caffe_metric.support.errors import UserError
from field_numbers import FIELDS


def test_every_message_of_the_file_is_known():
    parsed = schema.load()
    numbers = {field.name: (field.number, field.type) for field in parsed.layer_fields}
    assert numbers == FIELDS
    assert set(parsed.messages) == {kind for _, kind in numbers.values()}


def test_defaults_have_the_types_of_their_fields():
    parameters = schema.message("MarginInnerProductParameter").parse({})
    assert parameters.num_output is None
    assert parameters.type == "SINGLE"
    assert parameters.axis == 1
    assert isinstance(parameters.axis, int)
    assert parameters.base == 1.0
    assert parameters.persist_iteration is True
    assert parameters.triplet is False
    assert schema.message("L2NormParameter").parse({}).eps == schema.float32(1e-10)


def test_floats_are_rounded_as_protobuf_holds_them():
    assert schema.message("RankParameter").parse({"margin": 0.2}).margin == 0.20000000298023224


@pytest.mark.parametrize(
    ("given", "parsed"),
    [("RATIO", "RATIO"), (1, "RATIO"), ("1", "RATIO"), ("SOFT", "SOFT"), (0, "HINGE")],
)
def test_enums_are_names_or_numbers(given, parsed):
    message = schema.message("TripletLossParameter")
    assert message.parse({"losstype": given}).losstype == parsed


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"margn": 1}, "unknown parameter 'margn': did you mean 'margin'"),
        ({"qqqq": 1}, "unknown parameter 'qqqq': known are margin, losstype"),
        ({"losstype": "HINGED"}, r"losstype: 'HINGED' is none of HINGE \(0\), RATIO \(1\)"),
        ({"losstype": 7}, "losstype: 7 is none of"),
        ({"losstype": True}, "losstype: True is none of"),
        ({"margin": "wide"}, "margin: 'wide' is not a number"),
        ({"margin": True}, "margin: True is not a number"),
        ({"margin": float("nan")}, "margin: nan is not a number"),
        ({"num_negatives": 1.5}, "num_negatives: 1.5 is not an integer"),
        ({"num_negatives": -1}, "num_negatives: -1 is out of the range of uint32"),
        ({"num_negatives": [1]}, r"num_negatives: \[1\] is not an integer"),
        ({"swap": "maybe"}, "swap: 'maybe' is neither true nor false"),
    ],
)
def test_bad_values_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        schema.message("TripletLossParameter").parse(values)


def test_numbers_that_yaml_reads_as_text():
    parameters = schema.message("TripletLossParameter").parse({"eps": "1e-7", "num_negatives": "3"})
    assert parameters.eps == schema.float32(1e-7)
    assert parameters.num_negatives == 3


def test_integers_of_64_bits_keep_all_bits():
    field = schema.Field("seed", "uint64", 1)
    assert field.parse(2**64 - 1) == 2**64 - 1


PROTO = """
// Alone.
syntax = "proto2";
package caffe;

// Not of a message.

// Of a message.
message M { // not of a field
  enum E {
    A = 0;
    /* of B */
    B = 5;
  }
  // Of x,
  // and more.
  optional float x=1[default=-1.5e3];
  repeated E e = 2 [deprecated = true] ;
  optional E f = 5 [default = B];
  optional string s = 3 [default = "a;b}"];
  optional BlobShape shape = 4;
}
message LayerParameter {
  optional M m_param = 7;
}
"""


def compiled(text):
    """The schema that protoc makes of a file like ours."""
    if not shutil.which("protoc"):
        pytest.skip("there is no protoc")
    part = (descriptors.HERE / descriptors.PART).read_text(encoding="utf-8")
    return schema.read(descriptors.compiled(part, text))


def test_layout_of_the_file_does_not_matter():
    found = compiled(PROTO)
    message = found.messages["M"]
    assert message.comment == "Of a message."
    assert message.field("x").default == -1500.0
    assert message.field("x").comment == "Of x, and more."
    assert message.field("e").repeated
    assert message.field("e").default is None
    assert message.field("f").default == "B"
    assert message.field("s").default == "a;b}"
    assert message.field("shape").type == "BlobShape"
    assert message.enums["E"].values == {"A": 0, "B": 5}
    assert message.enums["E"].meanings == {"A": "", "B": "of B"}
    assert [(field.name, field.type, field.number) for field in found.layer_fields] == [
        ("m_param", "M", 7)
    ]


def test_a_broken_file_is_refused():
    with pytest.raises(UserError, match='caffe_metric.proto:.*"message" expects|Expected'):
        compiled(PROTO.replace("optional float", "maybe float"))


def test_a_checkout_without_protoc_says_so(monkeypatch):
    monkeypatch.setattr(descriptors.shutil, "which", lambda name: None)
    monkeypatch.setitem(sys.modules, "grpc_tools", None)
    with pytest.raises(UserError, match="needs protoc: install"):
        descriptors.compiled("", "")


def test_what_is_read_without_protobuf_is_what_protobuf_reads():
    for message in descriptors.load()[descriptors.OURS].message_type:
        if message.name == descriptors.FIELDS:
            continue
        ours = schema.message(message.name)
        assert [(f.name, f.number) for f in ours.fields] == [
            (f.name, f.number) for f in message.field
        ]
        for one, other in zip(ours.fields, message.field):
            assert (one.default is not None) == other.HasField("default_value")
        assert {name: enum.values for name, enum in ours.enums.items()} == {
            enum.name: {value.name: value.number for value in enum.value}
            for enum in message.enum_type
        }
