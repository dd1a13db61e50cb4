"""What `train` says of a loss that stands still: by its rules, and by whole trainings."""

from __future__ import annotations

import math

import pytest
from caffe_metric.training.warnings import CHANCE_STANDING, OVERFLOW, STANDING, Watch


def said(watch, values, name="loss", reports=None):
    """What is said of a row of losses, the end included."""
    lines = [line for value in values for line in watch.read({name: value}, reports or {})]
    return lines, watch.end()


def test_collapse_is_said_once_after_a_while():
    lines, end = said(Watch({"loss": 0.2}), [0.2005] * (2 * STANDING))
    assert len(lines) == 1
    assert "loss stands at its value for equal embeddings, 0.2: they collapse" in lines[0]
    assert end == []
    assert said(Watch({"loss": 0.2}), [0.2] * (STANDING - 1) + [0.19]) == ([], [])


def test_the_end_is_as_good_a_moment():
    lines, (end,) = said(Watch({"loss": 0.2}), [0.2] * 5)
    assert (lines, "collapse" in end) == ([], True)
    assert said(Watch({"loss": 0.2}), [0.2] * 2) == ([], [])  # two may be chance


def test_the_value_alone_is_no_collapse_where_tops_tell_more():
    reports = {"on": "active", "d": "d_an"}
    for told, collapsed in (
        ({"on": 1.0, "d": 1e-6}, True),
        ({"on": 0.3, "d": 1e-6}, False),
        ({"on": 1.0, "d": 0.5}, False),
    ):
        _, end = said(Watch({"loss": 0.2}, reports=reports), [0.2] * 9, reports=told)
        assert bool(end) is collapsed, told


def test_guessing_is_said_of_a_loss_that_never_leaves_ln_c():
    noisy = [math.log(10) * (1 + 0.05 * (-1) ** k) for k in range(CHANCE_STANDING)]
    lines, _ = said(Watch(classes={"loss": (10, 1.0)}), noisy)
    assert len(lines) == 1
    assert "loss stands at ln 10 = 2.303, as if it guessed" in lines[0]
    learning = [math.log(10) * (1 - k / CHANCE_STANDING) for k in range(CHANCE_STANDING)]
    assert said(Watch(classes={"loss": (10, 1.0)}), learning) == ([], [])


def test_a_loss_on_its_way_passes_ln_c():
    steps = [math.log(10) * (1.4 - 0.8 * k / 200) for k in range(CHANCE_STANDING)]
    assert said(Watch(classes={"loss": (10, 1.0)}), steps) == ([], [])
    assert said(Watch(classes={"loss": (10, 1.0)}, margins={"loss"}), [2.3026] * 300) == ([], [])


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_overflow_is_told_and_remembered(weight):
    watch = Watch(classes={"loss": (4, weight)})
    lines, _ = said(watch, [0.9 * OVERFLOW * weight] * STANDING)
    assert "the softmax overflows" in lines[0]
    assert watch.overflows
    said(watch, [1.0] * STANDING)  # it came back
    assert not watch.overflows


def test_a_large_loss_of_a_scaled_softmax_is_none():
    assert said(Watch(classes={"loss": (85742, 1.0)}), [45.0] * 300) == ([], [])
