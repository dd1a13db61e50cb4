"""Parameters have one truth, proto/: C++, Python and the pages know the same names and defaults."""

from __future__ import annotations

import numpy as np
import pytest
from caffe.proto import caffe_pb2
from caffe_metric import suite
from caffe_metric.nets import schema
from equal_lengths import zip_equal
from field_numbers import NUMBERS
from harness import ENGINES, FIELDS, Spec, need, run, unit_rows

MESSAGES = {row.type: row.message for row in suite.NATIVE}
# The field numbers that older trees' models have.
OLDER = {
    "TripletLossParameter": {"margin": 1, "losstype": 2, "num_negatives": 3, "use_pair": 4},
    "RankParameter": {
        "neg_num": 1,
        "pair_size": 2,
        "hard_ratio": 3,
        "rand_ratio": 4,
        "margin": 5,
    },
    "MarginInnerProductParameter": {
        "num_output": 1,
        "type": 2,
        "weight_filler": 3,
        "axis": 4,
        "base": 5,
        "gamma": 6,
        "power": 7,
        "iteration": 8,
        "lambda_min": 9,
        "triplet": 10,
        "semihard": 11,
    },
}


def descriptor(message):
    need("cpp")
    return caffe_pb2.DESCRIPTOR.message_types_by_name[message]


@pytest.mark.parametrize("message", MESSAGES.values())
def test_caffes_schema_is_ours(message):
    """Names, numbers, types and defaults of the built Caffe, against proto/."""
    theirs = descriptor(message).fields
    ours = schema.message(message).fields
    assert [field.name for field in ours] == [field.name for field in theirs]
    for one, other in zip_equal(ours, theirs):
        assert one.number == other.number, one.name
        if other.message_type is not None:
            assert one.type == other.message_type.name
            continue
        default = other.default_value
        if other.enum_type is not None:
            assert dict(one.enum.values) == {v.name: v.number for v in other.enum_type.values}
            default = other.enum_type.values_by_number[default].name
        # A field without a default is None here and 0 there.
        assert (one.default or 0) == (default or 0), one.name


def test_field_numbers():
    fields = {field.name: field.number for field in schema.load().layer_fields}
    assert fields == NUMBERS
    layer = descriptor("RankParameter").file.message_types_by_name["LayerParameter"]
    for name, number in NUMBERS.items():
        assert layer.fields_by_name[name].number == number


@pytest.mark.parametrize("message", OLDER)
def test_numbers_of_older_trees_are_kept(message):
    for name, number in OLDER[message].items():
        assert schema.message(message).field(name).number == number


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", FIELDS)
def test_defaults_are_what_a_layer_does(rng, engine, kind):
    """Every default written out changes nothing."""
    bottoms = {"x": unit_rows(rng, 12, 5)}
    if kind != "Norm":
        bottoms["y"] = np.arange(12) // 2 % 3
    fields = schema.of_layer(suite.find(kind)).fields
    needed = {"num_output": 3} if "num_output" in [field.name for field in fields] else {}
    written = {field.name: field.default for field in fields if field.default is not None}
    weights = unit_rows(rng, 3, 5) if needed else None
    results = []
    for parameters in ({}, written):
        made = run(Spec(kind, {**needed, **parameters}, 1, engine), bottoms, weights)
        top = made.forward()[0]
        results.append((top, made.backward(np.ones_like(top))["x"]))
    for one, other in zip_equal(*results):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "text",
    [
        "rank_param { neg_num: 4 pair_size: 2 hard_ratio: 0.5 rand_ratio: 0.5 margin: 1 }",
        "rank_hard_loss_param { neg_num: 4 pair_size: 2 hard_ratio: 0.5 rand_ratio: 0.5 "
        "margin: 1 }",
        "margin_inner_product_param { num_output: 10 type: QUADRUPLE "
        'weight_filler { type: "xavier" } base: 1000 gamma: 0.12 power: 1 lambda_min: 5 '
        "iteration: 0 triplet: true semihard: true }",
        "triplet_loss_param { margin: 0.2 losstype: 1 num_negatives: 3 use_pair: true }",
    ],
)
def test_prototxts_of_older_projects_parse(text):
    from caffe_metric.nets import netschema
    from google.protobuf import text_format

    net = netschema.load().net()
    text_format.Parse(f'layer {{ name: "x" {text} }}', net)
    assert len(net.layer[0].ListFields()) == 2
