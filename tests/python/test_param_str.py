"""param_str in the styles that people write it."""

from __future__ import annotations

import pytest

pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")

from caffe_metric.layers import param_str


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
