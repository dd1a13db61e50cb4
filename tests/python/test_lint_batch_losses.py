"""What lint says of the losses over the pairs of a batch, as Python layers."""

from __future__ import annotations

import re

import pytest
from caffe_metric import lint

NET = """
layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 8 dim: 5 }} }} }}
layer {{ name: "y" type: "Input" top: "y" input_param {{ shape {{ dim: {labels} }} }} }}
layer {{ name: "loss" type: "Python" bottom: "x" bottom: "y" top: "loss" loss_weight: 1 {more}
  python_param {{ module: "caffe_metric.layers" layer: "{kind}Layer" param_str: "{parameters}" }} }}
"""
KEPT = 3 * "param { lr_mult: 0 decay_mult: 0 } "


def said(tmp_path, kind, parameters, labels=8, more=""):
    path = tmp_path / "net.prototxt"
    path.write_text(NET.format(kind=kind, parameters=parameters, labels=labels, more=more))
    return [f"{found.severity}: {found.message}" for found in lint.check(str(path))]


@pytest.mark.parametrize(
    ("kind", "parameters", "more", "message"),
    [
        ("CircleLoss", "gamma: 0", "", "error: gamma is 0, must be > 0"),
        ("CircleLoss", "gama: 1", "", "error: .*did you mean 'gamma'"),
        ("MultiSimilarityLoss", "{alpha: -1}", "", "error: alpha is -1"),
        ("SupConLoss", "temperature: 0", "", "error: temperature is 0"),
        ("BatchContrastiveLoss", "negative_margin: 0", "", "error: negative_margin is 0"),
        ("BatchContrastiveLoss", "positive_margin: -1", "", "error: positive_margin is -1"),
        ("ProxyAnchorLoss", "", "", "error: num_output is 0 or missing"),
        ("CenterLoss", "update: BOTH", "", "error: .*update: 'BOTH' is none of DELTA"),
        ("CenterLoss", "{num_output: 4, normalization: FULL}", "", "warning: normalization is ig"),
        ("SupConLoss", "rows: 64", "", "warning: a Python layer cannot protect its memory"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, kind, parameters, more, message):
    (found,) = said(tmp_path, kind, parameters, more=more)
    assert re.match(message, found), found


@pytest.mark.parametrize(
    ("kind", "parameters", "more"),
    [
        ("CircleLoss", "", ""),
        ("SupConLoss", "rows: 64", KEPT),
        ("ProxyAnchorLoss", "num_output: 4", ""),
        ("CenterLoss", "num_output: 4", ""),
    ],
)
def test_what_is_right_is_let_pass(tmp_path, kind, parameters, more):
    assert said(tmp_path, kind, parameters, more=more) == []
    (found,) = said(tmp_path, kind, parameters, labels=7, more=more)
    assert "has 8 rows" in found
