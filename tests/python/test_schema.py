"""The parser of proto/caffe_metric.proto, and the checks of parameters that are built on it."""

from __future__ import annotations

import pytest
from caffe_metric.nets import schema


def test_every_message_of_the_file_is_known():
    parsed = schema.load()
    numbers = {field.name: (field.number, field.type) for field in parsed.layer_fields}
    assert numbers == {
        "l2_norm_param": (40101, "L2NormParameter"),
        "triplet_loss_param": (40102, "TripletLossParameter"),
        "rank_param": (40103, "RankParameter"),
        "rank_hard_loss_param": (40104, "RankParameter"),
        "margin_inner_product_param": (40105, "MarginInnerProductParameter"),
        "margin_softmax_loss_param": (40106, "MarginSoftmaxLossParameter"),
        "batch_contrastive_loss_param": (40107, "BatchContrastiveLossParameter"),
        "multi_similarity_loss_param": (40108, "MultiSimilarityLossParameter"),
        "circle_loss_param": (40109, "CircleLossParameter"),
        "sup_con_loss_param": (40110, "SupConLossParameter"),
        "lifted_structure_loss_param": (40111, "LiftedStructureLossParameter"),
        "proxy_anchor_loss_param": (40112, "ProxyAnchorLossParameter"),
        "center_loss_param": (40113, "CenterLossParameter"),
        "batch_memory_param": (40114, "BatchMemoryParameter"),
    }
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

// Of a message.
message M { // not of a field
  enum E { A = 0; /* of B */ B = 5; }
  // Of x.
  optional float x=1[default=-1.5e3];
  repeated E e = 2 [default = B, deprecated = true] ;
  optional string s = 3 [default = "a;b}"];
}
"""


def test_layout_of_the_file_does_not_matter():
    message = schema.parse(PROTO).messages["M"]
    assert message.comment == "Of a message."
    assert message.field("x").default == -1500.0
    assert message.field("x").comment.endswith("Of x.")
    assert message.field("e").repeated
    assert message.field("e").default == "B"
    assert message.enums["E"].values == {"A": 0, "B": 5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("message M { optional float", "proto: ends where"),
        ("message M [", "proto: '\\[' where '{' should stand"),
        ("message M { maybe float x = 1; }", "'maybe' where a field's label should stand"),
        ("message M {\n ? }", "proto: line 2: unexpected '\\?'"),
    ],
)
def test_broken_files_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        schema.parse(text)
