"""Layers beside the losses in the nets of forks, and what is only named: rewritten, compared.

The published forward passes stand in oracle/forks.py; sums of float32 numbers agree to 2e-4.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from caffe_metric.zoo import rules
from caffe_metric.zoo.rules import margins, named
from oracle import forks
from zoo_case import CLASSES, DATA, LABELS, MODEL, TOLERANCE, TRUNK, Case, random_weights, report

import caffe


def test_bn_is_batch_norm_and_scale_with_its_weights(tmp_path):
    text = (
        DATA
        + """
layer { name: "bn" type: "BN" bottom: "data" top: "bn"
  param { lr_mult: 1 decay_mult: 0 } param { lr_mult: 1 decay_mult: 0 }
  param { lr_mult: 0 } param { lr_mult: 0 }
  bn_param { slope_filler { type: "constant" value: 1 } bias_filler { type: "constant" value: 0 }
    momentum: 0.95 eps: 0.001 } }
layer { name: "fc" type: "InnerProduct" bottom: "bn" top: "fc"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
"""
    )
    rng = np.random.default_rng(0)
    blobs = [rng.uniform(0.5, 2, (1, 3, 1, 1)).astype(np.float32) for _ in range(4)]
    case = Case(tmp_path, text, {"bn": blobs})
    assert case.modernize() == 0
    found = case.blobs(caffe.TEST)
    expected = forks.batch_norm(case.images, *(blob.ravel() for blob in blobs), 0.001)
    np.testing.assert_allclose(found["bn"], expected, **TOLERANCE)
    case.train()


def test_depthwise_convolution(tmp_path):
    text = (
        DATA
        + """
layer { name: "dw" type: "DepthwiseConvolution" bottom: "data" top: "dw"
  convolution_param { num_output: 3 kernel_size: 3 bias_term: false engine: CAFFE
    weight_filler { type: "msra" } } }
layer { name: "fc" type: "InnerProduct" bottom: "dw" top: "fc"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
"""
    )
    model = random_weights(dw=[(3, 1, 3, 3)])
    case = Case(tmp_path, text, model)
    assert case.modernize() == 0
    found = case.blobs(caffe.TEST)
    np.testing.assert_allclose(
        found["dw"], forks.depthwise(case.images, model["dw"][0]), **TOLERANCE
    )
    case.train()


def test_fields_that_change_nothing_go(tmp_path, capsys):
    text = (
        "mem_param { optimize_train: true }\n"
        + TRUNK.replace(
            "batch_size: 12 }",
            "batch_size: 12 } transform_param { smooth_filtering: false apply_probability: 0.5 }",
        )
        + """
layer { name: "fc6" type: "InnerProduct" bottom: "fc5" top: "fc6"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "s" type: "Scale" bottom: "fc6" top: "s" param { lr_mult: 0 }
  scale_param { min_value: 3 filler { value: 2 } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "s" bottom: "label" top: "loss"
  softmax_param { normalize_type: "Softmax" } }
layer { name: "worst" type: "Accuracy" bottom: "s" bottom: "label" top: "worst"
  accuracy_param { min_is_better: true } include { phase: TEST } }
"""
    )
    case = Case(tmp_path, text, {**MODEL, **random_weights(fc6=[(CLASSES, 6), (CLASSES,)])})
    assert case.modernize() == 0
    found = case.blobs(caffe.TEST)
    np.testing.assert_allclose(found["s"], 3 * found["fc6"], rtol=1e-6)
    assert found["worst"] == pytest.approx(forks.accuracy(-found["fc6"], LABELS))
    case.train()


@pytest.mark.parametrize(
    "words, named",
    [
        ("transform_param { smooth_filtering: true }", "changes the images"),
        ('softmax_param { normalize_type: "L2" }', "normalize_type L2"),
        ("softmax_param { label_smooth_factor: 0.1 }", "label_smoothing"),
        ("scale_param { min_value: 3 }", "clamp"),
        ("image_data_param { label_dim: 3 }", "label_dim"),
        ("center_loss_param { nobody_knows: 3 }", "nobody_knows"),
        ("nobody_knows_param { a: 3 }", "nobody_knows_param"),
    ],
)
def test_fields_that_change_something_are_named(words, named, tmp_path, capsys):
    kind = "Scale" if "scale_param" in words else "SoftmaxWithLoss"
    text = TRUNK + f'layer {{ name: "x" type: "{kind}" bottom: "fc5" bottom: "label"\n {words} }}\n'
    if kind == "Scale":
        text = text.replace(' bottom: "label"\n', "\n")
    case = Case(tmp_path, text)
    assert case.modernize() == 1
    out = report(capsys)
    line = next(n for n, row in enumerate(text.split("\n"), 1) if words in row)
    assert any(row.startswith(f"{line} x: ") and named in row for row in out.splitlines()), out
    assert not (tmp_path / "new.prototxt").exists()


NAMED = [
    "InnerDistance",
    "GeneralContrastiveLoss",
    "GeneralTripletLoss",
    "LabeledMatching",
    "UnlabeledMatching",
    "HashingLoss",
    "PairwiseLoss",
    "BinomialLoss",
    "InterClass",
    "FocalLoss",
    "AdaCosAddmScale",
    "NPairMultiClassLoss",
    "NpairLoss",
    "CosineSimilarityBatch",
    "ClassDistance",
    "RangeLoss",
    "IslandLoss",
    "DSALoss",
    "LSROLoss",
    "SharedCenterLoss",
]


def test_partial_keeps_what_nobody_knows(tmp_path):
    """A layer that stays, whose bottom gets another name."""
    text = (
        TRUNK
        + """
layer { name: "n" type: "Normalize" bottom: "fc5" top: "n" }
layer { name: "longer" type: "Scale" bottom: "n" top: "n" }
layer { name: "before" type: "Strange" bottom: "n" top: "before" strange_param { how: 3 } }
layer { name: "n2" type: "Normalize" bottom: "n" top: "n" normalize_param { coeff: 2 } }
"""
    )
    case = Case(tmp_path, text)
    assert case.modernize("--partial") == 0
    assert 'bottom: "n2_before"' in case.text().partition("Strange")[2]
    assert "strange_param { how: 3 }" in case.text()


def test_the_page_has_them_all():
    page = (Path(__file__).parents[2] / "docs/zoo.md").read_text(encoding="utf-8")
    for name, (what, nearest) in named.LAYERS.items():
        assert f"| `{name}` | {what} | {nearest} |" in page
    for name in [*rules.BY_TYPE, *margins.MARGINS, *rules.BY_PYTHON_CLASS]:
        if name not in (
            "L2Norm",
            "L2Normalization",
            "L2NormalizeLayer",
            "ConvolutionDepthwise",
            "DataLayer",
            "ImageData",
        ):
            assert f"`{name}" in page, name


@pytest.mark.parametrize("kind", [*NAMED, "NoSuchLayer"])
def test_layers_without_an_equal_are_named(kind, tmp_path, capsys):
    layer = f'layer {{ name: "x" type: "{kind}" bottom: "fc5" bottom: "label" top: "x" }}\n'
    case = Case(tmp_path, TRUNK + layer)
    assert case.modernize() == 1
    out = report(capsys)
    line = TRUNK.count("\n") + 1
    assert out.startswith(f"{line} x: {kind} -> cannot be rewritten (")
    assert kind == "NoSuchLayer" or "nearest:" in out or "TripletLoss" in out
    assert not (tmp_path / "new.prototxt").exists()
    assert case.modernize("--partial") == 0
    assert case.text() == TRUNK + layer


@pytest.mark.parametrize(
    "given, words",
    [("margin: 0.5", "margin 0.5"), ("type: COSINE", "COSINE"), ('distance_type: "L1"', "L1")],
)
def test_center_losses_without_an_equal(given, words, tmp_path, capsys):
    text = (
        TRUNK
        + f"""layer {{ name: "c" type: "CenterLoss" bottom: "fc5" bottom: "label" top: "c"
  center_loss_param {{ num_output: 4 {given} }} }}"""
    )
    assert Case(tmp_path, text).modernize() == 1
    assert words in report(capsys)
