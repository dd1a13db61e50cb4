"""Losses and norms in the words of their forks: rewritten, compared, trained.

The published forward passes stand in oracle/forks.py; sums of float32 numbers agree to 2e-4.
"""

from __future__ import annotations

import numpy as np
import pytest
from oracle import forks
from zoo_case import CLASSES, DATA, LABELS, MODEL, TOLERANCE, TRUNK, Case, random_weights, report

import caffe

# --- L-Softmax ----------------------------------------------------------------------------------

LARGE = """
layer { name: "ip2" type: "LargeMarginInnerProduct" bottom: "fc5" bottom: "label"
  top: "ip2" top: "lambda" param { name: "ip2" lr_mult: 1 }
  largemargin_inner_product_param { num_output: 4 type: DOUBLE base: 5 gamma: 0 lambda_min: 0
    weight_filler { type: "msra" } } include { phase: TRAIN } }
"""
SMALL = """
layer { name: "ip2" type: "LargeMarginInnerProduct" bottom: "fc5" bottom: "label"
  top: "ip2_test" top: "lambda" param { name: "ip2" lr_mult: 1 }
  largemargin_inner_product_param { num_output: 4 type: SINGLE } include { phase: TEST } }
"""
PLAIN = """
layer { name: "ip2" type: "InnerProduct" bottom: "fc5" top: "ip2_test" param { name: "ip2" }
  inner_product_param { num_output: 4 bias_term: false } include { phase: TEST } }
"""
ENDS = """
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss"
  include { phase: TRAIN } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip2_test" bottom: "label" top: "accuracy"
  include { phase: TEST } }
"""


@pytest.mark.parametrize("test_layer", [SMALL, PLAIN])
def test_large_margin_of_train_and_test_is_one_layer(test_layer, tmp_path):
    model = {**MODEL, **random_weights(ip2=[(CLASSES, 6)])}
    case = Case(tmp_path, TRUNK + LARGE + test_layer + ENDS, model)
    assert case.modernize() == 0
    assert case.text().count('"MarginInnerProduct"') == 1
    w = model["ip2"][0]
    found = case.blobs(caffe.TRAIN)
    z = forks.large_margin(found["fc5"], w, LABELS, 2, 5)
    np.testing.assert_allclose(found["ip2"], z, **TOLERANCE)
    assert found["lambda"] == 5
    found = case.blobs(caffe.TEST)
    z = forks.product(found["fc5"], w)
    np.testing.assert_allclose(found["ip2"], z, **TOLERANCE)
    assert found["accuracy"] == pytest.approx(forks.accuracy(z, LABELS))
    case.train()


def test_large_margin_of_both_phases(tmp_path):
    text = (
        TRUNK
        + LARGE.replace("include { phase: TRAIN }", "")
        + ENDS.split("layer")[1].join(["layer", ""]).replace("include { phase: TRAIN }", "")
    )
    model = {**MODEL, **random_weights(ip2=[(CLASSES, 6)])}
    case = Case(tmp_path, text, model)
    assert case.modernize() == 0
    for phase in (caffe.TRAIN, caffe.TEST):
        found = case.blobs(phase)
        z = forks.large_margin(found["fc5"], model["ip2"][0], LABELS, 2, 5)
        np.testing.assert_allclose(found["ip2"], z, **TOLERANCE)


@pytest.mark.parametrize(
    "field", ["smooth_margin_inner_product_param", "margin_inner_product_param"]
)
def test_smooth_margin(field, tmp_path):
    text = (
        TRUNK
        + f"""
layer {{ name: "fc6" type: "SmoothMarginInnerProduct" bottom: "fc5" bottom: "label" top: "fc6"
  top: "lambda" {field} {{ num_output: 4 type: SINGLE weight_filler {{ type: "xavier" }}
    base: 1000 gamma: 0.12 power: 1 lambda_min: 5 iteration: 0 }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "fc6" bottom: "label" top: "loss" }}
"""
    )
    case = Case(tmp_path, text, {**MODEL, **random_weights(fc6=[(CLASSES, 6)])})
    assert case.modernize() == 0
    assert "ignore_negative_labels: true" in case.text()
    case.train()


def test_margin_inner_product_keeps_its_text_and_gets_its_count(tmp_path, capsys):
    layer = """
layer {  # A-Softmax
  name: "fc6" type: "MarginInnerProduct" bottom: "fc5" bottom: "label" top: "fc6" top: "lambda"
  margin_inner_product_param { num_output: 4 type: QUADRUPLE weight_filler { type: "xavier" }
    base: 1000 gamma: 0.12 power: 1 lambda_min: 5 iteration: 3 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc6" bottom: "label" top: "loss" }
"""
    model = {**MODEL, **random_weights(fc6=[(CLASSES, 6)])}
    case = Case(tmp_path, TRUNK + layer, model)
    assert case.modernize() == 0
    assert case.text() == TRUNK + layer
    assert "fc6: MarginInnerProduct -> as it is" in report(capsys)
    kept = case.params()["fc6"]
    np.testing.assert_array_equal(kept[0], model["fc6"][0])
    assert kept[1].tolist() == [3]
    case.train()


# --- CenterLoss, lifted structure ---------------------------------------------------------------

SOFTMAX = """
layer { name: "fc6" type: "InnerProduct" bottom: "fc5" top: "fc6"
  inner_product_param { num_output: 4 normalize: false weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc6" bottom: "label" top: "loss" }
"""


@pytest.mark.parametrize(
    "given", ["", 'distance_type: "L2"', "eps: 1e-5 type: L2 margin: 0", "axis: 1"]
)
def test_center_loss(given, tmp_path):
    text = (
        TRUNK
        + SOFTMAX
        + f"""
layer {{ name: "center" type: "CenterLoss" bottom: "fc5" bottom: "label" top: "center"
  param {{ lr_mult: 1 decay_mult: 2 }} loss_weight: 0.008
  center_loss_param {{ num_output: 4 center_filler {{ type: "xavier" }} {given} }} }}
"""
    )
    model = {**MODEL, **random_weights(fc6=[(CLASSES, 6), (CLASSES,)], center=[(CLASSES, 6)])}
    case = Case(tmp_path, text, model)
    assert case.modernize() == 0
    found = case.blobs(caffe.TRAIN)
    loss = forks.center_loss(found["fc5"], model["center"][0], LABELS)
    np.testing.assert_allclose(found["center"], loss, **TOLERANCE)
    case.train()


def test_lifted_structure(tmp_path):
    text = (
        TRUNK
        + """
layer { name: "lifted" type: "LiftedStructSimilaritySoftmaxLoss" bottom: "fc5" bottom: "label"
  top: "lifted" lifted_struct_sim_softmax_loss_param { margin: 0.7 } }
"""
    )
    case = Case(tmp_path, text, MODEL)
    assert case.modernize() == 0
    found = case.blobs(caffe.TRAIN)
    np.testing.assert_allclose(
        found["lifted"], forks.lifted(found["fc5"], LABELS, 0.7), **TOLERANCE
    )
    case.train()


# --- Triplets -----------------------------------------------------------------------------------


def test_three_blobs(tmp_path, capsys):
    text = (
        TRUNK
        + """
layer { name: "s" type: "Slice" bottom: "fc5" top: "a" top: "p" top: "n"
  slice_param { axis: 0 } }
layer { name: "triplet" type: "TripletLoss" bottom: "a" bottom: "p" bottom: "n" top: "triplet"
  triplet_loss_param { margin: 0.2 } }
layer { name: "quiet" type: "Silence" bottom: "label" }
"""
    )
    case = Case(tmp_path, text, MODEL)
    assert case.modernize() == 0
    assert case.text() == text
    found = case.blobs(caffe.TRAIN)
    value = forks.triplet(found["a"], found["p"], found["n"], 0.2)
    np.testing.assert_allclose(found["triplet"], value, **TOLERANCE)
    case.train()


@pytest.mark.parametrize("name", ["num_triplets", "num_negatives"])
def test_groups(name, tmp_path):
    text = (
        TRUNK
        + f"""
layer {{ name: "unit" type: "Normalize" bottom: "fc5" top: "unit" }}
layer {{ name: "triplet" type: "TripletLoss" bottom: "unit" top: "triplet"
  triplet_loss_param {{ margin: 0.3 losstype: 0 {name}: 2 use_pair: false }} }}
layer {{ name: "quiet" type: "Silence" bottom: "label" }}
"""
    )
    case = Case(tmp_path, text, MODEL)
    assert case.modernize() == 0
    found = case.blobs(caffe.TRAIN)
    np.testing.assert_allclose(
        found["triplet"], forks.triplet_groups(found["unit"], 2, 0.3), **TOLERANCE
    )
    case.train()


def test_losstype_2_of_groups_is_not_soft(tmp_path, capsys):
    text = (
        TRUNK
        + """
layer { name: "triplet" type: "TripletLoss" bottom: "fc5" top: "triplet"
  triplet_loss_param { num_triplets: 2
    losstype: 2 } }
"""
    )
    case = Case(tmp_path, text)
    assert case.modernize() == 1
    out = report(capsys)
    line = 1 + text.split("\n").index("    losstype: 2 } }")
    assert f"{line} triplet: TripletLoss -> cannot be rewritten" in out and "SOFT" in out


def test_features_and_labels(tmp_path, capsys):
    text = (
        TRUNK
        + """
layer { name: "triplet" type: "TripletLoss" bottom: "fc5" bottom: "label" top: "triplet"
  triplet_loss_param { margin: 0.5 } }
"""
    )
    case = Case(tmp_path, text, MODEL)
    assert case.modernize() == 0
    assert "SEMIHARD" in report(capsys)
    case.train()


def test_batch_triplet_loss(tmp_path):
    text = (
        TRUNK
        + """
layer { name: "unit" type: "Normalize" bottom: "fc5" top: "unit" }
layer { name: "triplet" type: "BatchTripletLoss" bottom: "unit" bottom: "label"
  top: "triplet" top: "accuracy" top: "three" loss_weight: 1 loss_weight: 0 loss_weight: 0
  triplet_loss_param { margin: 0.5 } }
layer { name: "quiet" type: "Silence" bottom: "three" }
"""
    )
    case = Case(tmp_path, text, MODEL)
    assert case.modernize() == 0
    found = case.blobs(caffe.TRAIN)
    np.testing.assert_allclose(
        found["triplet"], forks.triplet_all(found["unit"], LABELS, 0.5), **TOLERANCE
    )
    case.train()


def test_sample_triplet(tmp_path):
    text = (
        TRUNK
        + """
layer { name: "sample" type: "SampleTriplet" bottom: "fc5" top: "table"
  sample_triplet_param { label_num: 4 sample_num: 3 } }
layer { name: "triplet" type: "TripletLoss" bottom: "fc5" bottom: "table" top: "triplet"
  triplet_loss_param { eps: 1e-5 } }
"""
    )
    case = Case(tmp_path, text, MODEL)
    assert case.modernize() == 0
    for words in (
        "distance: COSINE",
        "margin: 0.1",
        "normalization: BATCH_SIZE",
        'bottom: "label"',
    ):
        assert words in case.text()
    case.train()


@pytest.mark.parametrize("field", ["rank_param", "rank_hard_loss_param", "rankhard_loss_param"])
def test_rank_hard_loss_without_a_top(field, tmp_path):
    text = (
        TRUNK
        + f"""
layer {{ name: "norm" type: "Normalize" bottom: "fc5" top: "norm" }}
layer {{ name: "rank" type: "RankHardLoss" bottom: "norm" bottom: "label"
  {field} {{ neg_num: 4 pair_size: 2 hard_ratio: 0.5 rand_ratio: 0.5 margin: 1 }} }}
"""
    )
    case = Case(tmp_path, text, MODEL)
    assert case.modernize() == 0
    case.train()


# --- Python modules -----------------------------------------------------------------------------


def test_python_modules(tmp_path):
    text = (
        TRUNK
        + """
layer { name: "n" type: "Python" bottom: "fc5" top: "n"
  python_param { module: "triplet.norm_layer" layer: "L2NormLayer" } }
layer { name: "select" type: "Python" bottom: "n" bottom: "label" top: "a" top: "p" top: "q"
  python_param { module: "tripletselectlayer" layer: "TripletSelectLayer" } }
layer { name: "loss" type: "Python" bottom: "a" bottom: "p" bottom: "q" top: "loss"
  loss_weight: 1
  python_param { module: "tripletlosslayer" layer: "TripletLayer" param_str: "'margin': 0.2" } }
"""
    )
    case = Case(tmp_path, text, MODEL)
    assert case.modernize() == 0
    found = case.blobs(caffe.TRAIN)
    np.testing.assert_allclose(found["n"], forks.unit_samples(found["fc5"]), **TOLERANCE)
    value = forks.triplet(found["a"], found["p"], found["q"], 0.2)
    np.testing.assert_allclose(found["loss"], value, **TOLERANCE)
    case.train()


# --- Norms --------------------------------------------------------------------------------------


def test_norms_of_maps(tmp_path):
    """Normalize acts at each position; NormL2 takes the whole sample, which Flatten makes a row."""
    text = (
        DATA
        + """
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "map" type: "Normalize" bottom: "conv1" top: "map" }
layer { name: "sample" type: "NormL2" bottom: "conv1" top: "sample" }
layer { name: "fc_a" type: "InnerProduct" bottom: "map" top: "fc_a"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "fc_b" type: "InnerProduct" bottom: "sample" top: "fc_b"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "a" type: "SoftmaxWithLoss" bottom: "fc_a" bottom: "label" top: "a" }
layer { name: "b" type: "SoftmaxWithLoss" bottom: "fc_b" bottom: "label" top: "b" }
"""
    )
    case = Case(tmp_path, text, random_weights(conv1=[(4, 3, 3, 3), (4,)]))
    assert case.modernize() == 0
    found = case.blobs(caffe.TRAIN)
    np.testing.assert_allclose(found["map"], forks.unit_rows(found["conv1"]), **TOLERANCE)
    whole = forks.unit_samples(found["conv1"]).reshape(len(LABELS), -1)
    np.testing.assert_allclose(found["sample"], whole, **TOLERANCE)
    case.train()


def test_a_map_of_a_whole_sample_is_refused(tmp_path, capsys):
    text = (
        DATA
        + """
layer { name: "n" type: "NormL2" bottom: "data" top: "n" }
layer { name: "conv1" type: "Convolution" bottom: "n" top: "conv1"
  convolution_param { num_output: 4 kernel_size: 3 } }
"""
    )
    assert Case(tmp_path, text).modernize() == 1
    assert "whole sample" in report(capsys)


def test_ssd_stays(tmp_path, capsys):
    text = (
        DATA
        + """
layer { name: "n" type: "Normalize" bottom: "data" top: "n"
  norm_param { across_spatial: false scale_filler { type: "constant" value: 20 } } }
"""
    )
    case = Case(tmp_path, text)
    assert case.modernize() == 0
    assert case.text() == text
    assert "another layer" in report(capsys)


def test_coeff_is_a_scale_that_does_not_learn(tmp_path):
    text = (
        TRUNK
        + """
layer { name: "n" type: "Normalize" bottom: "fc5" top: "fc5" normalize_param { coeff: 10 } }
layer { name: "triplet" type: "TripletLoss" bottom: "fc5" bottom: "label" top: "triplet" }
"""
    )
    case = Case(tmp_path, text, MODEL)
    assert case.modernize() == 0
    found = case.blobs(caffe.TRAIN)
    np.testing.assert_allclose(np.linalg.norm(found["fc5"], axis=1), 10, rtol=1e-5)
    case.train()


def test_a_layer_that_computes_in_the_norms_blob_gets_another(tmp_path):
    """NormFace: a learned scale in the place of the unit features, whose gradient Norm needs."""
    text = (
        TRUNK
        + """
layer { name: "n" type: "Normalize" bottom: "fc5" top: "fc5" }
layer { name: "longer" type: "Scale" bottom: "fc5" top: "fc5"
  scale_param { axis: 0 num_axes: 0 filler { value: 8 } } }
layer { name: "fc6" type: "InnerProduct" bottom: "fc5" top: "fc6"
  inner_product_param { num_output: 4 normalize: true bias_term: false
    weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc6" bottom: "label" top: "loss" }
"""
    )
    model = {**MODEL, **random_weights(fc6=[(CLASSES, 6)]), "longer": [np.float32(8)]}
    case = Case(tmp_path, text, model)
    assert case.modernize() == 0
    found = case.blobs(caffe.TRAIN)
    np.testing.assert_allclose(found["n_unit"], forks.unit_rows(found["fc5"]), **TOLERANCE)
    z = 8 * forks.product(found["n_unit"], model["fc6"][0], normalize=True)
    np.testing.assert_allclose(found["fc6"], z, **TOLERANCE)
    case.train()


def test_all_of_it_in_one_blob(tmp_path):
    """BN, which becomes two layers, a norm and a learned scale, each in place."""
    text = (
        TRUNK
        + """
layer { name: "bn" type: "BN" bottom: "fc5" top: "fc5" bn_param { slope_filler { value: 1 } } }
layer { name: "n" type: "Normalize" bottom: "fc5" top: "fc5" normalize_param { coeff: 2 } }
layer { name: "again" type: "NormL2" bottom: "fc5" top: "fc5" }
layer { name: "longer" type: "Scale" bottom: "fc5" top: "fc5"
  scale_param { axis: 0 num_axes: 0 filler { value: 8 } } }
layer { name: "triplet" type: "TripletLoss" bottom: "fc5" bottom: "label" top: "triplet" }
"""
    )
    rng = np.random.default_rng(0)
    bn = [rng.uniform(0.5, 2, (1, 6, 1, 1)).astype(np.float32) for _ in range(4)]
    case = Case(tmp_path, text, {**MODEL, "bn": bn, "longer": [np.float32(8)]})
    assert case.modernize() == 0
    found = case.blobs(caffe.TEST)
    np.testing.assert_allclose(np.linalg.norm(found["fc5"], axis=1), 8, rtol=1e-5)
    case.train()
