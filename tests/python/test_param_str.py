"""param_str in the styles that people write it."""

from __future__ import annotations

import pytest
from caffe_metric.nets import param_str


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("  \n", {}),
        ("{}", {}),
        ("margin: 0.2", {"margin": 0.2}),
        ("'margin': 0.2", {"margin": 0.2}),
        ("'margin': 0.2, 'swap': true", {"margin": 0.2, "swap": True}),
        ("margin: 0.2, losstype: 1", {"margin": 0.2, "losstype": 1}),
        ("margin: 0.2\nswap: true", {"margin": 0.2, "swap": True}),
        (
            "{margin: 0.2, weight_filler: {type: xavier}}",
            {"margin": 0.2, "weight_filler": {"type": "xavier"}},
        ),
    ],
)
def test_styles(text, values):
    assert param_str.parse(text) == values


@pytest.mark.parametrize("text", ["margin", "[1, 2]", "margin: : 1", "a: b: {"])
def test_what_is_no_mapping_is_refused(text):
    with pytest.raises(ValueError, match="param_str is no YAML mapping"):
        param_str.parse(text)


def test_what_is_written_is_read_again():
    values = {"margin": 0.2, "swap": True, "weight_filler": {"type": "xavier"}, "mining": "ALL"}
    assert param_str.written(values) == (
        "{margin: 0.2, swap: true, weight_filler: {type: xavier}, mining: ALL}"
    )
    assert param_str.parse(param_str.written(values)) == values
