"""Classifiers with margins in the words of their forks: rewritten, compared, trained.

The forward pass of the new net is held against the published one in NumPy (oracle/forks.py), with
the weights of a model of the old net. Cosines, angles and logits agree to 2e-4: a scale of 64
times the float32 rounding of a cosine, and the eps of the published norms.
"""

from __future__ import annotations

import numpy as np
import pytest
from caffe_metric.nets import modelfile
from oracle import forks
from zoo_case import CLASSES, LABELS, TRUNK, Case, random_weights

import caffe

TOLERANCE = {"rtol": 2e-4, "atol": 2e-4}

MODEL = random_weights(
    conv1=[(4, 3, 3, 3), (4,)], relu1=[(4,)], fc5=[(6, 64), (6,)], fc6=[(CLASSES, 6)]
)

NORMS = {
    "Normalize": 'type: "Normalize"',
    "Normalize_L2": 'type: "Normalize" normalize_param { normalize_type: "L2" fix_gradient: true }',
    "NormL2": 'type: "NormL2" norml2_param { spare: 0 }',
    "Normalization": 'type: "Normalization" normalization_param { norm: L2 }',
    "L2Normalize": 'type: "L2Normalize"',
    "Norm": 'type: "Norm"',
    "Norm2Layer": 'type: "Python" python_param { module: "norm2layer" layer: "Norm2Layer" }',
}

MARGINS = {
    "LabelSpecificAdd": ("label_specific_add_param { bias: -0.35 }", forks.cosface(-0.35)),
    "annealed": (
        "label_specific_add_param { bias: -0.1 bias_base: 0 bias_gamma: -1e-5 bias_min: -0.25 "
        "transform_test: true }",
        forks.cosface(-0.25),
    ),
    "CosinAddm": ("cosin_add_m_param { m: 0.5 }", forks.arcface(0.5)),
    "CosinAddm by default": ("", forks.arcface(0.5)),
    "Arcface": ("arcface_param { m: 0.4 }", forks.arcface(0.4)),
    "CombinedMargin": ("combined_margin_param { m1: 1 m2: 0.3 m3: 0.2 }", forks.combined(0.3, 0.2)),
    "LabelMargin": ("label_margin_param { bias: 0.3 }", forks.arcface(0.3)),
    "LabelSpecificMargin": (
        "label_specific_margin_param { type: HARD margin_base: 20 margin_max: 20 }",
        forks.arcface(np.radians(20)),
    ),
}
TYPES = {"annealed": "LabelSpecificAdd", "CosinAddm by default": "CosinAddm"}


def chain(norm="Normalize", margin="LabelSpecificAdd", scale=30, **changes):
    """trunk, embedding, normalisation, margin, scale, loss, as AMSoftmax and arcface-caffe do.

    norm, margin: names of the tables above; scale: a number; each, and others, may be layers.
    """
    own = {
        name: text
        for name, text in (("norm", norm), ("margin", margin), ("scale", scale))
        if "layer" in str(text)
    }
    norm, margin = "Normalize" if "norm" in own else norm, "Arcface" if "margin" in own else margin
    parts = {
        "norm": f'layer {{ name: "norm1" bottom: "fc5" top: "norm1" {NORMS[norm]} }}',
        "product": """
layer { name: "fc6" type: "InnerProduct" bottom: "norm1" top: "fc6" param { lr_mult: 1 }
  inner_product_param { num_output: 4 normalize: true bias_term: false
    weight_filler { type: "xavier" } } }""",
        "margin": f"""
layer {{ name: "margin" type: "{TYPES.get(margin, margin)}" bottom: "fc6" bottom: "label"
  top: "fc6_margin" {MARGINS[margin][0]} }}""",
        "scale": f"""
layer {{ name: "fc6_scaled" type: "Scale" bottom: "fc6_margin" top: "fc6_scaled"
  param {{ lr_mult: 0 decay_mult: 0 }}
  scale_param {{ filler {{ type: "constant" value: {scale} }} }} }}""",
        "loss": """
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc6_scaled" bottom: "label" top: "loss"
  loss_weight: 1 }""",
        "accuracy": """
layer { name: "accuracy" type: "Accuracy" bottom: "fc6" bottom: "label" top: "accuracy"
  include { phase: TEST } }""",
    }
    parts.update(own, **changes)
    return TRUNK + "".join(parts.values())


def published(case, rule, scale, blob="fc5", normalize=True, phase=caffe.TRAIN):
    """Loss and accuracy of the published net, from the embedding on."""
    found = case.blobs(phase)
    x = found[blob]
    x = forks.unit_rows(x) if normalize else x
    z = forks.product(x, case.params()["fc6"][0], normalize=True)
    margin = forks.on_target(z, LABELS, rule) if phase == caffe.TRAIN else z
    return found, scale * margin, z


@pytest.mark.parametrize("margin", MARGINS)
def test_every_margin_of_every_fork(margin, tmp_path):
    scale = 30 + len(margin)
    case = Case(tmp_path, chain(margin=margin, scale=scale), MODEL)
    assert case.modernize() == 0
    found, z, _ = published(case, MARGINS[margin][1], scale)
    np.testing.assert_allclose(found["fc6_scaled"], z, **TOLERANCE)
    np.testing.assert_allclose(found["loss"], forks.softmax_loss(z, LABELS), **TOLERANCE)
    found, z, plain = published(case, MARGINS[margin][1], scale, phase=caffe.TEST)
    np.testing.assert_allclose(found["fc6_scaled"], z, **TOLERANCE)
    assert found["accuracy"] == pytest.approx(forks.accuracy(plain, LABELS))


@pytest.mark.parametrize("norm", NORMS)
def test_every_normalisation_before_it(norm, tmp_path):
    case = Case(tmp_path, chain(norm=norm, scale=64), MODEL)
    assert case.modernize() == 0
    assert "normalize_features: true" in case.text()
    found, z, _ = published(case, forks.cosface(-0.35), 64)
    np.testing.assert_allclose(found["fc6_scaled"], z, **TOLERANCE)


def test_it_trains_and_the_weights_are_the_old_ones(tmp_path):
    case = Case(tmp_path, chain(), MODEL)
    assert case.modernize() == 0
    kept = case.params()
    for name in ("conv1", "relu1", "fc5"):
        for old, new in zip(MODEL[name], kept[name]):
            np.testing.assert_array_equal(old, new)
    rows = MODEL["fc6"][0]
    np.testing.assert_array_equal(kept["fc6"][0], rows)
    assert kept["fc6"][1].tolist() == [0]
    losses = case.train(40)
    assert losses[-1]["loss"] < losses[0]["loss"]


def test_in_place_margin_of_train_alone(tmp_path):
    text = (
        TRUNK
        + """
layer { name: "norm1" type: "Normalize" bottom: "fc5" top: "norm1" }
layer { name: "fc6" type: "InnerProduct" bottom: "norm1" top: "fc6" param { name: "fc6_w" }
  inner_product_param { num_output: 4 normalize: true bias_term: false
    weight_filler { type: "xavier" } } }
layer { name: "margin" type: "LabelSpecificAdd" bottom: "fc6" bottom: "label" top: "fc6"
  label_specific_add_param { bias: -0.2 } include { phase: TRAIN } }
layer { name: "s" type: "Power" bottom: "fc6" top: "fc6_scaled" power_param { scale: 10 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc6_scaled" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "fc6" bottom: "label" top: "accuracy" }
"""
    )
    case = Case(tmp_path, text, MODEL)
    assert case.modernize() == 0
    found, z, _ = published(case, forks.cosface(-0.2), 10)
    np.testing.assert_allclose(found["fc6_scaled"], z, **TOLERANCE)
    found, z, plain = published(case, forks.cosface(-0.2), 10, phase=caffe.TEST)
    np.testing.assert_allclose(found["fc6_scaled"], z, **TOLERANCE)
    case.train()


def test_a_learned_scale_stays_without_its_clamp(tmp_path, capsys):
    scale = """
layer { name: "fc6_scaled" type: "Scale" bottom: "fc6_margin" top: "fc6_scaled"
  scale_param { min_value: 5 max_value: 60 filler { type: "constant" value: 12 } } }"""
    model = {**MODEL, "fc6_scaled": [np.full(CLASSES, 12, np.float32)]}
    case = Case(tmp_path, chain(scale=scale), model)
    assert case.modernize() == 0
    assert "learned, without the clamp" in capsys.readouterr().out
    found, z, _ = published(case, forks.cosface(-0.35), 12)
    np.testing.assert_allclose(found["fc6_scaled"], z, **TOLERANCE)
    case.train()


def test_a_model_tells_the_constant(tmp_path):
    model = {**MODEL, "fc6_scaled": [np.full(CLASSES, 16, np.float32)]}
    case = Case(tmp_path, chain(scale=30), model)
    assert case.modernize() == 0
    found, z, _ = published(case, forks.cosface(-0.35), 16)
    np.testing.assert_allclose(found["fc6_scaled"], z, **TOLERANCE)
    assert "fc6_scaled" not in case.params()


TWO_TOPS = """
layer { name: "norm1" type: "Normalize" bottom: "fc5" top: "norm1" top: "length"
  normalize_param { normalize_type: "L2" bp_norm: true } }"""
CHANNEL = """
layer { name: "back" type: "ChannelScale" bottom: "fc6_margin" bottom: "length" top: "fc6_scaled"
  channel_scale_param { do_forward: true } }"""


def test_the_feature_keeps_its_length(tmp_path):
    """AM-Softmax without feature normalisation: ChannelScale by the norm."""
    case = Case(tmp_path, chain(norm=TWO_TOPS, scale=CHANNEL), MODEL)
    changed = case.modernize()
    assert changed == 0
    assert "normalize_features" not in case.text()
    found = case.blobs(caffe.TRAIN)
    x = found["fc5"]
    z = forks.product(forks.unit_rows(x), case.params()["fc6"][0], normalize=True)
    z = forks.on_target(z, LABELS, forks.cosface(-0.35)) * np.linalg.norm(x, axis=1)[:, None]
    np.testing.assert_allclose(found["fc6_scaled"], z, **TOLERANCE)
    case.train()


def test_the_length_may_be_silenced_elsewhere(tmp_path):
    quiet = """
layer { name: "quiet" type: "Silence" bottom: "length" include { phase: TEST } }"""
    case = Case(tmp_path, chain(norm=TWO_TOPS, scale=CHANNEL, quiet=quiet), MODEL)
    assert case.modernize() == 0
    assert "Silence" not in case.text()
    case.blobs(caffe.TEST)
    case.train()


def test_a_scale_before_the_margin(tmp_path):
    """z_y = 20 c - 4: a cosine margin of 0.2."""
    text = (
        TRUNK
        + """
layer { name: "norm1" type: "Normalize" bottom: "fc5" top: "norm1" }
layer { name: "longer" type: "Scale" bottom: "norm1" top: "norm1"
  param { lr_mult: 0 } scale_param { filler { value: 20 } } }
layer { name: "fc6" type: "InnerProduct" bottom: "norm1" top: "fc6"
  inner_product_param { num_output: 4 normalize: true bias_term: false
    weight_filler { type: "xavier" } } }
layer { name: "margin" type: "LabelSpecificAdd" bottom: "fc6" bottom: "label" top: "fc6"
  label_specific_add_param { bias: -4 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc6" bottom: "label" top: "loss" }
"""
    )
    case = Case(tmp_path, text, MODEL)
    assert case.modernize() == 0
    found, z, _ = published(case, forks.cosface(-0.2), 20)
    np.testing.assert_allclose(found["fc6"], z, **TOLERANCE)


def test_features_that_others_read_stay_of_unit_length(tmp_path):
    triplet = """
layer { name: "triplet" type: "TripletLoss" bottom: "norm1" bottom: "label" top: "triplet"
  triplet_loss_param { margin: 0.2 } }"""
    case = Case(tmp_path, chain(triplet=triplet), MODEL)
    assert case.modernize() == 0
    assert 'type: "Norm"' in case.text()
    found, z, _ = published(case, forks.cosface(-0.35), 30)
    np.testing.assert_allclose(found["fc6_scaled"], z, **TOLERANCE)
    np.testing.assert_allclose(np.linalg.norm(found["norm1"], axis=1), 1, rtol=1e-5)
    case.train()


def test_test_reads_the_cosines_themselves(tmp_path):
    """A loss of the plain cosines in TEST keeps its number: the scale stays a layer."""
    probe = """
layer { name: "plain" type: "SoftmaxWithLoss" bottom: "fc6" bottom: "label" top: "plain"
  include { phase: TEST } }"""
    case = Case(tmp_path, chain(probe=probe), MODEL)
    assert case.modernize() == 0
    found, z, plain = published(case, forks.cosface(-0.35), 30, phase=caffe.TEST)
    np.testing.assert_allclose(found["fc6_scaled"], z, **TOLERANCE)
    np.testing.assert_allclose(found["plain"], forks.softmax_loss(plain, LABELS), **TOLERANCE)


def test_a_second_top_and_its_silence_go(tmp_path):
    margin = """
layer { name: "margin" type: "LabelSpecificAdd" bottom: "fc6" bottom: "label" top: "fc6_margin"
  top: "bias" label_specific_add_param { bias: -0.35 } }
layer { name: "quiet" type: "Silence" bottom: "bias" }"""
    case = Case(tmp_path, chain(margin=margin), MODEL)
    assert case.modernize() == 0
    assert "Silence" not in case.text()
    found, z, _ = published(case, forks.cosface(-0.35), 30)
    np.testing.assert_allclose(found["fc6_scaled"], z, **TOLERANCE)


def test_products_of_their_own_in_train_and_test(tmp_path):
    """Two layers that share a blob by its name, with a scale each."""
    text = (
        TRUNK
        + """
layer { name: "norm1" type: "Normalize" bottom: "fc5" top: "norm1" }
layer { name: "fc6" type: "InnerProduct" bottom: "norm1" top: "fc6" param { name: "fc6_w" }
  inner_product_param { num_output: 4 normalize: true bias_term: false
    weight_filler { type: "xavier" } } include { phase: TRAIN } }
layer { name: "margin" type: "CosinAddm" bottom: "fc6" bottom: "label" top: "fc6_margin"
  cosin_add_m_param { m: 0.5 } include { phase: TRAIN } }
layer { name: "s" type: "Scale" bottom: "fc6_margin" top: "fc6_scaled" param { lr_mult: 0 }
  scale_param { filler { type: "constant" value: 10 } } include { phase: TRAIN } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc6_scaled" bottom: "label" top: "loss"
  include { phase: TRAIN } }
layer { name: "fc6" type: "InnerProduct" bottom: "norm1" top: "fc6_test" param { name: "fc6_w" }
  inner_product_param { num_output: 4 normalize: true bias_term: false } include { phase: TEST } }
layer { name: "accuracy" type: "Accuracy" bottom: "fc6_test" bottom: "label" top: "accuracy"
  include { phase: TEST } }
"""
    )
    case = Case(tmp_path, text, MODEL)
    assert case.modernize() == 0
    found, z, _ = published(case, forks.arcface(0.5), 10)
    np.testing.assert_allclose(found["fc6_scaled"], z, **TOLERANCE)
    found, z, _ = published(case, forks.arcface(0.5), 1, phase=caffe.TEST)
    assert found["accuracy"] == pytest.approx(forks.accuracy(z, LABELS))
    case.train()


def test_a_product_alone(tmp_path):
    """NormFace: unit features times a learned scale, unit rows, softmax; and one with a bias."""
    text = (
        TRUNK
        + """
layer { name: "norm1" type: "Normalize" bottom: "fc5" top: "norm1" }
layer { name: "fc6" type: "InnerProduct" bottom: "norm1" top: "fc6"
  param { lr_mult: 1 } param { lr_mult: 2 }
  inner_product_param { num_output: 4 normalize: true weight_filler { type: "xavier" } } }
layer { name: "scale" type: "Scale" bottom: "fc6" top: "fc6_scaled"
  scale_param { filler { value: 7 } bias_term: false min_value: 1 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc6_scaled" bottom: "label" top: "loss" }
"""
    )
    bias = np.array([0.5, -0.25, 0, 1], np.float32)
    model = {**MODEL, "fc6": [*MODEL["fc6"], bias], "scale": [np.full(CLASSES, 7, np.float32)]}
    case = Case(tmp_path, text, model)
    assert case.modernize() == 0
    found, z, _ = published(case, lambda c: c, 1)
    np.testing.assert_allclose(found["fc6_scaled"], 7 * (z + bias), **TOLERANCE)
    case.train()


def test_center_projection(tmp_path):
    text = (
        TRUNK
        + """
layer { name: "coco" type: "Normalize" bottom: "fc5" top: "unit" normalize_param { coeff: 3 } }
layer { name: "fc6" type: "CenterProjection" bottom: "unit" top: "fc6"
  center_projection_param { num_output: 4 scale: 30 bias_term: false
    weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc6" bottom: "label" top: "loss" }
"""
    )
    case = Case(tmp_path, text, MODEL)
    assert case.modernize() == 0
    found, z, _ = published(case, lambda c: c, 90)
    np.testing.assert_allclose(found["fc6"], z, **TOLERANCE)
    case.train()


def test_a_deploy_net_has_no_labels(tmp_path):
    text = """input: "x" input_shape { dim: 2 dim: 6 }
layer { name: "norm1" type: "Normalize" bottom: "x" top: "norm1" }
layer { name: "fc6" type: "InnerProduct" bottom: "norm1" top: "fc6"
  inner_product_param { num_output: 4 normalize: true bias_term: false } }
"""
    case = Case(tmp_path, text, MODEL)
    assert case.modernize() == 0
    rows = case.params()["fc6"][0]
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    case = Case(tmp_path, text)
    assert case.modernize() == 1


def test_a_row_that_stops_the_gradient_goes_on_stopping_it(tmp_path):
    norm = """
layer { name: "norm1" type: "Normalize" bottom: "fc5" top: "norm1" propagate_down: false }"""
    case = Case(tmp_path, chain(norm=norm), MODEL)
    assert case.modernize() == 0
    before = case.params()

    def run():
        solver = caffe.get_solver("solver.prototxt")
        solver.net.copy_from("new.caffemodel")
        solver.net.forward()
        solver.net.backward()
        return {
            name: float(np.abs(blobs[0].diff).max()) for name, blobs in solver.net.params.items()
        }

    slopes = case._in_child(run)
    assert slopes["fc6"] > 0 and slopes["fc5"] == slopes["conv1"] == 0
    assert before.keys() == slopes.keys()


def test_test_without_the_length(tmp_path):
    """ChannelScale in TRAIN alone: in TEST the accuracy asks for the order of the cosines."""
    channel = CHANNEL.replace("channel_scale_param", "include { phase: TRAIN } channel_scale_param")
    margin = """
layer { name: "margin" type: "CosinAddm" bottom: "fc6" bottom: "label" top: "fc6_margin"
  cosin_add_m_param { m: 0.3 } include { phase: TRAIN } }"""
    loss = """
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc6_scaled" bottom: "label" top: "loss"
  include { phase: TRAIN } }"""
    text = chain(norm=TWO_TOPS, margin=margin, scale=channel, loss=loss)
    case = Case(tmp_path, text, MODEL)
    assert case.modernize() == 0
    found, _, plain = published(case, forks.arcface(0.3), 1, phase=caffe.TEST)
    assert found["accuracy"] == pytest.approx(forks.accuracy(plain, LABELS))
    case.train()


def test_a_norm_of_each_phase(tmp_path):
    one = """
layer { name: "norm1" type: "Normalize" bottom: "fc5" top: "norm1" include { phase: TRAIN } }"""
    norm = one + one.replace("TRAIN", "TEST")
    case = Case(tmp_path, chain(norm=norm), MODEL)
    assert case.modernize() == 0
    for phase in (caffe.TRAIN, caffe.TEST):
        found, z, _ = published(case, forks.cosface(-0.35), 30, phase=phase)
        np.testing.assert_allclose(found["fc6_scaled"], z, **TOLERANCE)


def test_a_learned_scale_before_the_product(tmp_path):
    """NormFace: of the unit features, clamped in its forward pass."""
    text = (
        TRUNK
        + """
layer { name: "norm1" type: "Normalize" bottom: "fc5" top: "norm1" }
layer { name: "longer" type: "Scale" bottom: "norm1" top: "longer" param { lr_mult: 1 }
  scale_param { axis: 0 num_axes: 0 filler { value: 10 } min_value: 1 max_value: 50 } }
layer { name: "fc6" type: "InnerProduct" bottom: "longer" top: "fc6"
  inner_product_param { num_output: 4 normalize: true bias_term: false
    weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc6" bottom: "label" top: "loss" }
"""
    )
    case = Case(tmp_path, text, {**MODEL, "longer": [np.float32(10)]})
    assert case.modernize() == 0
    found, z, _ = published(case, lambda c: c, 10)
    np.testing.assert_allclose(found["fc6"], z, **TOLERANCE)
    case.train()


@pytest.mark.parametrize("train", ["product", "MarginInnerProduct"])
def test_a_stock_product_of_test_keeps_its_one_blob(train, tmp_path):
    """TEST reads the weights of TRAIN's layer, which is another type, by the name of the layer."""
    head = {
        "product": """
layer { name: "norm1" type: "Normalize" bottom: "fc5" top: "norm1" }
layer { name: "fc6" type: "InnerProduct" bottom: "norm1" top: "fc6" include { phase: TRAIN }
  inner_product_param { num_output: 4 normalize: true bias_term: false
    weight_filler { type: "xavier" } } }
layer { name: "margin" type: "LabelSpecificAdd" bottom: "fc6" bottom: "label" top: "fc6"
  label_specific_add_param { bias: -0.1 } include { phase: TRAIN } }""",
        "MarginInnerProduct": """
layer { name: "norm1" type: "Norm" bottom: "fc5" top: "norm1" }
layer { name: "fc6" type: "MarginInnerProduct" bottom: "norm1" bottom: "label" top: "fc6"
  margin_inner_product_param { num_output: 4 type: DOUBLE weight_filler { type: "xavier" } }
  include { phase: TRAIN } }""",
    }[train]
    text = (
        TRUNK
        + head
        + """
layer { name: "fc6" type: "InnerProduct" bottom: "norm1" top: "fc6" include { phase: TEST }
  inner_product_param { num_output: 4 bias_term: false } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc6" bottom: "label" top: "loss" }
"""
    )
    case = Case(tmp_path, text, MODEL)
    solver = (tmp_path / "solver.prototxt").read_text()
    (tmp_path / "solver.prototxt").write_text(solver + "test_iter: 1 test_interval: 5")
    assert case.modernize() == 0
    assert "persist_iteration: false" in case.text()
    assert len(case.params()["fc6"]) == 1
    case.train()


def test_two_classifiers_of_one_norm(tmp_path):
    second = """
layer { name: "fc7" type: "InnerProduct" bottom: "norm1" top: "fc7"
  inner_product_param { num_output: 4 normalize: true bias_term: false
    weight_filler { type: "gaussian_unitball" } } }
layer { name: "margin7" type: "CosinAddm" bottom: "fc7" bottom: "label" top: "fc7"
  cosin_add_m_param { m: 0.2 } }
layer { name: "s7" type: "Scale" bottom: "fc7" top: "fc7" param { lr_mult: 0 decay_mult: 0 }
  scale_param { filler { type: "constant" value: 16 } bias_term: false } }
layer { name: "loss7" type: "SoftmaxWithLoss" bottom: "fc7" bottom: "label" top: "loss7"
  loss_weight: 0.5 }"""
    case = Case(tmp_path, chain(second=second), {**MODEL, "fc7": MODEL["fc6"]})
    assert case.modernize() == 0
    found, z, plain = published(case, forks.cosface(-0.35), 30)
    np.testing.assert_allclose(found["fc6_scaled"], z, **TOLERANCE)
    z = 16 * forks.on_target(plain, LABELS, forks.arcface(0.2))
    np.testing.assert_allclose(found["fc7"], z, **TOLERANCE)
    case.train()


def test_a_model_of_2014(tmp_path):
    """Its blobs have four numbers for a shape."""
    case = Case(tmp_path, chain(), MODEL)
    made = modelfile.message()()
    for name, blobs in MODEL.items():
        layer = made.layers.add(name=name)
        for values in blobs:
            shape = (1,) * (4 - values.ndim) + values.shape
            blob = layer.blobs.add(num=shape[0], channels=shape[1], height=shape[2], width=shape[3])
            blob.data.extend(values.ravel().tolist())
    (tmp_path / "old.caffemodel").write_bytes(made.SerializeToString())
    assert case.modernize() == 0
    kept = case.params()
    for name, blobs in MODEL.items():
        for old, new in zip(blobs, kept[name]):
            np.testing.assert_array_equal(old, new)


REFUSED = {
    "combined margin with m1 4": ({"margin": "CombinedMargin4"}, "m1 is 4"),
    "positive bias": ({"margin": "positive"}, "help the target"),
    "SOFT": ({"margin": "soft"}, "type SOFT"),
    "t": ({"margin": "sv"}, "support vector"),
    "no m": ({"margin": "no m"}, "never published"),
}
MARGINS_REFUSED = {
    "CombinedMargin4": ("CombinedMargin", "combined_margin_param { m2: 0.3 }"),
    "positive": ("LabelSpecificAdd", "label_specific_add_param { bias: 0.35 }"),
    "soft": ("LabelSpecificMargin", "label_specific_margin_param { type: SOFT }"),
    "sv": ("CosinAddm", "cosin_add_m_param { m: 0.5 t: 1.2 }"),
    "no m": ("Arcface", ""),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_named_and_nothing_written(what, tmp_path, capsys):
    changes, words = REFUSED[what]
    kind, parameters = MARGINS_REFUSED[changes["margin"]]
    margin = (
        f'\nlayer {{ name: "margin" type: "{kind}" bottom: "fc6" bottom: "label"'
        f' top: "fc6_margin" {parameters} }}'
    )
    case = Case(tmp_path, chain(margin=margin), MODEL)
    assert case.modernize() == 1
    out = capsys.readouterr().out
    line = next(n for n, text in enumerate(chain(margin=margin).split("\n"), 1) if kind in text)
    assert any(
        row.startswith(f"{line} margin: {kind} -> cannot") and words in row
        for row in out.splitlines()
    ), out
    assert not (tmp_path / "new.prototxt").exists()
    assert not (tmp_path / "new.caffemodel").exists()


@pytest.mark.parametrize(
    "change, words",
    [
        ({"norm": 'layer { name: "n" type: "ReLU" bottom: "fc5" top: "norm1" }'}, "of length 1"),
        (
            {
                "probe": """
layer { name: "p" type: "SoftmaxWithLoss" bottom: "fc6" bottom: "label" top: "p" }"""
            },
            "without the margin in TRAIN",
        ),
        ({"scale": CHANNEL}, "ChannelScale"),
        (
            {
                "product": """
layer { name: "fc6" type: "InnerProduct" bottom: "norm1" top: "fc6"
  inner_product_param { num_output: 4 normalize: true bias_term: true } }"""
            },
            "bias",
        ),
        (
            {
                "product": """
layer { name: "fc6" type: "InnerProduct" bottom: "norm1" top: "fc6"
  inner_product_param { num_output: 4 normalize: true bias_term: false transpose: true } }"""
            },
            "transpose",
        ),
        (
            {
                "product": """
layer { name: "fc6" type: "InnerProduct" bottom: "norm1" top: "fc6"
  inner_product_param { num_output: 4 bias_term: false } }"""
            },
            "stands behind no",
        ),
    ],
)
def test_rows_of_layers_that_are_something_else(change, words, tmp_path, capsys):
    case = Case(tmp_path, chain(**change))
    assert case.modernize() == 1
    assert words in capsys.readouterr().out
