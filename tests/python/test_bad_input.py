"""Each kind of bad input ends with a message that has the value and the layer's name.

In C++ a CHECK ends the process, so every case runs in a child process. A Python layer raises
ValueError with the same facts. Bad input must not be mistaken for valid: the second half has what
is odd, but valid.
"""

from __future__ import annotations

import math
import signal

import numpy as np
import pytest
from caffe_metric.support import child
from harness import ENGINES, Spec, need, run

import caffe

X = np.arange(24, dtype=np.float32).reshape(6, 4) / 10
PAIRS = np.array([0, 0, 1, 1, 2, 2])
FILLER = {"type": "xavier"}


def with_value(array, index, value):
    changed = np.array(array, np.float32)
    changed[index] = value
    return changed


def triplet(words, bottoms=None, tops=1, **parameters):
    return "TripletLoss", parameters, bottoms or {"x": X, "y": PAIRS}, tops, words


def rank(words, bottoms=None, tops=1, **parameters):
    return "RankHardLoss", parameters, bottoms or {"x": X, "y": PAIRS}, tops, words


def margin(words, bottoms=None, tops=1, **parameters):
    parameters = {"num_output": 3, "weight_filler": FILLER, **parameters}
    return "MarginInnerProduct", parameters, bottoms or {"x": X, "y": PAIRS}, tops, words


THREE = {"a": X, "p": X, "n": X}
CASES = {
    # Bottoms of different counts or shapes.
    "triplet: rows differ": triplet(["6", "5"], {**THREE, "p": X[:5]}),
    "triplet: columns differ": triplet(["4", "3"], {**THREE, "n": X[:, :3]}),
    "triplet: labels too few": triplet(["6", "5"], {"x": X, "y": PAIRS[:5]}),
    "triplet: weights too many": triplet(["6", "7"], {**THREE, "w": np.ones(7)}),
    "triplet: five bottoms": triplet(["5"], {**THREE, "w": np.ones(6), "v": np.ones(6)}),
    "triplet: five tops": triplet(["5"], tops=5),
    "rank: labels too few": rank(["6", "5"], {"x": X, "y": PAIRS[:5]}),
    "rank: three tops": rank(["3"], tops=3),
    "margin: labels too few": margin(["6", "4"], {"x": X, "y": PAIRS[:4]}),
    "margin: three tops": margin(["3"], tops=3),
    # N no multiple of the group.
    "triplet: groups of 4": triplet(["6", "4"], {"x": X}, num_negatives=2),
    "triplet: no negatives": triplet(["num_negatives", "0"], {"x": X}, num_negatives=0),
    "rank: groups of 4": rank(["6", "pair_size", "4"], pair_size=4),
    "rank: groups of 1": rank(["pair_size", "1"], pair_size=1),
    "rank: groups of 2^32 - 1": rank(["4294967295"], pair_size=4294967295),
    "rank: no negatives": rank(["neg_num", "0"], neg_num=0),
    # Labels.
    "rank: a pair of two classes": rank(["rows 2 and 3"], {"x": X, "y": [0, 0, 1, 2, 2, 2]}),
    "triplet: a negative label": triplet(["row 1", "-1"], {"x": X, "y": with_value(PAIRS, 1, -1)}),
    "triplet: half a label": triplet(["row 4", "2.5"], {"x": X, "y": with_value(PAIRS, 4, 2.5)}),
    "triplet: NaN label": triplet(["row 4", "nan"], {"x": X, "y": with_value(PAIRS, 4, math.nan)}),
    "rank: a negative label": rank(["row 0", "-2"], {"x": X, "y": with_value(PAIRS, 0, -2)}),
    "rank: half a label": rank(["row 3", "1.25"], {"x": X, "y": with_value(PAIRS, 3, 1.25)}),
    "margin: a negative label": margin(["row 5", "-1"], {"x": X, "y": with_value(PAIRS, 5, -1)}),
    "margin: half a label": margin(["row 5", "0.5"], {"x": X, "y": with_value(PAIRS, 5, 0.5)}),
    "margin: a label too large": margin(["row 2", "3"], {"x": X, "y": with_value(PAIRS, 2, 3)}),
    "margin: a huge label": margin(["row 2", "e+30"], {"x": X, "y": with_value(PAIRS, 2, 1e30)}),
    "margin: an infinite label": margin(["row 0"], {"x": X, "y": with_value(PAIRS, 0, math.inf)}),
    # Parameters.
    "triplet: RATIO without margin": triplet(["margin", "0"], losstype="RATIO", margin=0.0),
    "triplet: RATIO, margin < 0": triplet(["margin", "-1"], losstype="RATIO", margin=-1.0),
    "triplet: p is 0": triplet(["p ", "0"], distance="LP", p=0.0),
    "triplet: p < 0": triplet(["p ", "-2"], distance="LP", p=-2.0),
    "rank: hard_ratio": rank(["hard_ratio", "1.5"], hard_ratio=1.5),
    "rank: rand_ratio": rank(["rand_ratio", "-0.5"], rand_ratio=-0.5),
    "margin: no classes": margin(["num_output", "0"], num_output=0),
    "margin: two margins": margin(["SINGLE", "DOUBLE"], type="DOUBLE", angular_margin=0.2),
    "margin: another two": margin(["SINGLE", "TRIPLE"], type="TRIPLE", cosine_margin=0.2),
    "margin: angle too large": margin(["angular_margin", "2"], angular_margin=2.0),
    "margin: angle < 0": margin(["angular_margin", "-0.5"], angular_margin=-0.5),
    "margin: reference with scale": margin(["REFERENCE"], gradient="REFERENCE", scale=2.0),
    "margin: reference, normalised": margin(
        ["REFERENCE"], gradient="REFERENCE", normalize_features=True
    ),
    "norm: eps": ("Norm", {"eps": 0.0}, {"x": X}, 1, ["eps"]),
    "norm: one axis": ("Norm", {}, {"x": X[0]}, 1, ["axes"]),
    # NaN and Inf.
    "triplet: NaN": triplet(["row 3", "NaN"], {"x": with_value(X, (3, 1), math.nan), "y": PAIRS}),
    "triplet: Inf": triplet(["row 5", "Inf"], {**THREE, "p": with_value(X, (5, 0), math.inf)}),
    "triplet: -Inf": triplet(["row 0"], {"x": with_value(X, (0, 3), -math.inf)}),
    "rank: NaN": rank(["row 4", "NaN"], {"x": with_value(X, (4, 2), math.nan), "y": PAIRS}),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", CASES)
def test_bad_input(engine, name):
    need(engine)
    kind, parameters, bottoms, tops, words = CASES[name]
    spec = Spec(kind, parameters, tops, engine, name="the_layer")
    outcome = child.run(lambda: run(spec, bottoms).forward() and None, timeout=60)
    assert_refused(outcome, engine, words, kind)


def assert_refused(outcome, engine, words, kind):
    assert not outcome.ok, "bad input went through"
    said = outcome.last_words
    if engine == "cpp":
        assert outcome.signal == signal.SIGABRT, outcome.stderr
        # Caffe's own checks of the numbers of bottoms and tops name the type only.
        assert "the_layer" in said or f"{kind} Layer " in said
    else:
        assert said.startswith("ValueError"), outcome.stderr
        assert "the_layer" in said
    for word in words:
        assert word in said, said


def test_both_spellings():
    need("cpp")
    spec = Spec(
        "RankHardLoss",
        {"neg_num": 2},
        name="the_layer",
        extra="rank_hard_loss_param { neg_num: 2 }",
    )
    outcome = child.run(lambda: run(spec, {"x": X, "y": PAIRS}).forward() and None)
    assert_refused(outcome, "cpp", ["rank_param", "rank_hard_loss_param"], "RankHardLoss")


def test_more_rows_than_swap_has_room_for():
    """It keeps N x N numbers, and Caffe counts them in 32 bits."""
    need("cpp")
    bottoms = {"x": np.zeros((46341, 1), np.float32), "y": np.zeros(46341, np.float32)}
    spec = Spec("TripletLoss", {"swap": True, "mining": "ALL"}, name="the_layer")
    outcome = child.run(lambda: run(spec, bottoms) and None)
    assert_refused(outcome, "cpp", ["46341", "46340", "swap"], "TripletLoss")


@pytest.mark.parametrize("kind", ["TripletLoss", "RankHardLoss"])
def test_a_weight_on_a_report(kind):
    need("cpp")
    spec = Spec(kind, tops=2, name="the_layer", extra="loss_weight: 1 loss_weight: 0.5")
    outcome = child.run(lambda: run(spec, {"x": X, "y": PAIRS}).forward() and None)
    assert_refused(outcome, "cpp", ["loss_weight"], kind)


def test_a_learned_iteration_count():
    need("cpp")
    spec = Spec(
        "MarginInnerProduct",
        {"num_output": 3, "weight_filler": FILLER},
        name="the_layer",
        extra="param { } param { lr_mult: 1 }",
    )
    outcome = child.run(lambda: run(spec, {"x": X, "y": PAIRS}).forward() and None)
    assert_refused(outcome, "cpp", ["lr_mult"], "MarginInnerProduct")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("TripletLossLayer", "margn: 1"),
        ("RankHardLossLayer", "neg_number: 2"),
        ("MarginInnerProductLayer", "{num_output: 3, lambda: 5}"),
        ("NormLayer", "epsilon: 1"),
        ("TripletLossLayer", "margin: wide"),
        ("TripletLossLayer", "losstype: 7"),
        ("TripletLossLayer", "just text"),
    ],
)
def test_bad_param_str(kind, text):
    """Unknown names, with the nearest known one, and values of the wrong type."""
    need("python")
    spec = Spec(kind[: -len("Layer")], engine="python")
    bottoms = {"x": X} if kind == "NormLayer" else {"x": X, "y": PAIRS}

    def build():
        from harness import build, inputs

        layer = spec.text(bottoms).replace("{name: checked}", text)
        assert text in layer
        build(inputs(bottoms) + layer)

    outcome = child.run(build)
    assert outcome.last_words.startswith("ValueError"), outcome.stderr
    name = text.strip("{}").split(",")[-1].split(":")[0].strip()
    assert name in outcome.last_words
    # `caffe train` loses the text of an exception, so it is printed, too.
    assert name in outcome.stderr.split("Traceback")[0]


# --- Odd, but valid -----------------------------------------------------------------------------

ODD = {
    "one row, mined": triplet([], {"x": X[:1], "y": [5]}),
    "one class": triplet([], {"x": X, "y": [1] * 6}),
    "one dimension": triplet([], {"x": X[:, :1], "y": PAIRS}),
    "large labels": triplet([], {"x": X, "y": PAIRS * 1000000}),
    "negative margin": triplet([], margin=-3.0),
    "one group": triplet([], {"x": X[:3]}),
    "anchor is positive": triplet([], {"a": X, "p": X, "n": X}),
    "labels of four axes": triplet([], {"x": X, "y": PAIRS.reshape(6, 1, 1, 1)}),
    "one pair": rank([], {"x": X[:2], "y": [7, 7]}),
    "more negatives than rows": rank([], neg_num=4000000),
    "no draws": rank([], hard_ratio=0.0, rand_ratio=0.0),
    "zero features": margin([], {"x": 0 * X, "y": PAIRS}),
    "one class of one": margin([], {"x": X[:1], "y": [0]}, num_output=1),
    "huge features": margin([], {"x": 1e18 * X, "y": PAIRS}),
    "zeros": ("Norm", {}, {"x": 0 * X}, 1, []),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ODD)
def test_odd_input_gives_finite_numbers(engine, name):
    need(engine)
    kind, parameters, bottoms, tops, _ = ODD[name]
    made = run(Spec(kind, parameters, tops, engine), bottoms, phase=caffe.TRAIN)
    found = made.forward()
    gradients = made.backward(*found)
    for array in [*found, *gradients.values(), *(blob.diff for blob in made.blobs)]:
        assert np.isfinite(array).all()
