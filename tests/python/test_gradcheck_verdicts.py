"""Right gradients that are hard to see are called right: no false verdict, whatever the seed.

Large numbers whose sums round (raw pixels), rows that are nearly equal, draws whose number of rows
changes from point to point, losses that write no top. `SEEDS=50 pytest` takes more seeds. That
wrong gradients are still found stands in test_teeth.py and test_gradcheck_command.py; here, too,
for the layers at hand.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")

from caffe_metric.gradients import check as gradcheck
from caffe_metric.nets import isolate, netfile

SEEDS = int(os.environ.get("SEEDS", 8))

CONVOLUTION = """
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 2 dim: 3 dim: 20 dim: 20 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 8 kernel_size: 5 weight_filler { type: "xavier" } } }
"""
ROWS = """
layer { name: "data" type: "Input" top: "data" top: "label"
  input_param { shape { dim: 24 dim: 64 } shape { dim: 24 } } }
layer { name: "norm" type: "Norm" bottom: "data" top: "norm" }
"""
RANK = """
layer { name: "rank" type: "RankHardLoss" bottom: "norm" bottom: "label" top: "rank"
  rank_param { neg_num: 4 pair_size: 2 hard_ratio: 0.5 rand_ratio: 0.5 margin: 0.1 } }
"""
SELECT = """
layer { name: "select" type: "Python" bottom: "norm" bottom: "label" top: "a" top: "p" top: "n"
  python_param { module: "caffe_metric.layers" layer: "TripletSelectLayer"
    param_str: "mining: MINING, margin: 0.2" } }
layer { name: "loss" type: "TripletLoss" bottom: "a" bottom: "p" bottom: "n" top: "loss" }
"""


def pixels(rng):
    """0 to 255, less a mean of each channel."""
    means = np.array([104, 117, 123], np.float32)[:, None, None]
    return {"data": rng.integers(0, 256, (2, 3, 20, 20)).astype(np.float32) - means}


def rows(spread):
    def make(rng):
        x = rng.normal(size=64) + spread * rng.normal(size=(24, 64))
        return {"data": x.astype(np.float32), "label": np.arange(24) // 2 % 6}

    return make


CASES = {
    "raw pixels": (CONVOLUTION, pixels),
    **{f"rows alike to {spread:g}": (ROWS + RANK, rows(spread)) for spread in (0.1, 1e-3, 1e-4)},
    **{
        f"draws of {mining}": (ROWS + SELECT.replace("MINING", mining), rows(1))
        for mining in ("SEMIHARD", "VIOLATING")
    },
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.slow
def test_no_false_verdict(case, tmp_path):
    text, make = CASES[case]
    (tmp_path / "net.prototxt").write_text(text)
    for seed in range(SEEDS):
        np.savez(tmp_path / "data.npz", **make(np.random.default_rng(1000 + seed)))
        found = gradcheck.gradcheck(
            str(tmp_path / "net.prototxt"), data=str(tmp_path / "data.npz"), seed=seed
        )
        wrong = [row for row in found if row.verdict in (gradcheck.FAIL, gradcheck.UNCLEAR)]
        assert not wrong, (seed, wrong)
        assert any(row.verdict == gradcheck.OK for row in found)


LOSS = """
layer { name: "data" type: "Input" top: "data" top: "label"
  input_param { shape { dim: 8 dim: 5 } shape { dim: 8 } } }
layer { name: "loss" type: "TYPE" bottom: "data" bottom: "label" }
"""


@pytest.mark.parametrize("kind", ["RankHardLoss", "TripletLoss", "SoftmaxWithLoss"])
def test_a_loss_that_writes_no_top_is_checked(kind, tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(LOSS.replace("TYPE", kind))
    first = gradcheck.gradcheck(str(path))[0]
    assert (first.verdict, first.blob) == (gradcheck.OK, "bottom 0 'data'")
    assert first.probes > 0


def test_a_slope_that_is_a_tenth_off_is_found_under_the_rounding_of_pixels(tmp_path):
    """The bias of the convolution: a sum of numbers up to 300, each rounded."""
    path = tmp_path / "net.prototxt"
    path.write_text(CONVOLUTION)
    rng = np.random.default_rng(0)
    kept = isolate.capture(
        str(path), netfile.read(str(path)), 0, None, pixels(rng), 0, lambda layer: layer.bottom
    )
    probe = isolate.LayerProbe(kept[0], 0)
    right = probe.gradients

    def wrong(projections):
        bottoms, blobs = right(projections)
        return bottoms, [blobs[0], blobs[1] * np.float32(1.1)]

    assert {row.verdict for row in gradcheck.check_layer(probe)} == {gradcheck.OK}
    probe.gradients = wrong
    verdicts = [row.verdict for row in gradcheck.check_layer(probe)]
    assert verdicts == [gradcheck.OK, gradcheck.OK, gradcheck.FAIL]


def test_a_wrong_gradient_among_jumps_is_found(tmp_path, monkeypatch):
    """SelectLayer with half its gradient: the draws do not hide it."""
    (tmp_path / "half.py").write_text(
        "from caffe_metric.layers import TripletSelectLayer\n"
        "class HalfLayer(TripletSelectLayer):\n"
        "    def backward(self, top, propagate_down, bottom):\n"
        "        super().backward(top, propagate_down, bottom)\n"
        "        bottom[0].diff[...] *= 0.5\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    text = ROWS + SELECT.replace("MINING", "SEMIHARD")
    text = text.replace(
        '"caffe_metric.layers" layer: "TripletSelectLayer"', '"half" layer: "HalfLayer"'
    )
    (tmp_path / "net.prototxt").write_text(text)
    np.savez(tmp_path / "data.npz", **rows(1)(np.random.default_rng(0)))
    found = gradcheck.gradcheck(
        str(tmp_path / "net.prototxt"), layer="select", data=str(tmp_path / "data.npz")
    )
    assert found[0].verdict == gradcheck.FAIL
