"""`caffe-metric gradcheck` on nets of stock layers, and on Python layers with known faults."""

from __future__ import annotations

import json
import textwrap

import pytest

pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")

from caffe_metric.gradients import check as gradcheck

STOCK = """
name: "stock"
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 3 dim: 2 dim: 7 dim: 7 } } }
layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 3 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 3 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "norm" type: "BatchNorm" bottom: "conv" top: "norm" }
layer { name: "relu" type: "ReLU" bottom: "norm" top: "norm" }
layer { name: "pool" type: "Pooling" bottom: "norm" top: "pool"
  pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "drop" type: "Dropout" bottom: "pool" top: "pool" }
layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "square" type: "Eltwise" bottom: "ip" bottom: "ip" top: "square"
  eltwise_param { operation: PROD } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "square" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy"
  include { phase: TEST } }
"""

# Each class squares its bottom: the gradient is 2 x dy.
FAULTS = """
import caffe

class Right(caffe.Layer):
    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data ** 2

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = 2 * bottom[0].data * top[0].diff

class Zero(Right):
    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = 0

class Nothing(Right):
    def backward(self, top, propagate_down, bottom):
        pass

class Sign(Right):
    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = -2 * bottom[0].data * top[0].diff

class Factor(Right):
    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = bottom[0].data * top[0].diff

class ForgetsTopDiff(Right):
    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = 2 * bottom[0].data

class OneRow(Right):
    def backward(self, top, propagate_down, bottom):
        super().backward(top, propagate_down, bottom)
        bottom[0].diff[-1] *= 0.5

class NotFinite(Right):
    def backward(self, top, propagate_down, bottom):
        super().backward(top, propagate_down, bottom)
        bottom[0].diff[1, 1] = float("inf")

class Raises(Right):
    def backward(self, top, propagate_down, bottom):
        raise RuntimeError("no such luck")
"""


@pytest.fixture
def net(tmp_path, monkeypatch):
    def write(text):
        path = tmp_path / "net.prototxt"
        path.write_text(text)
        return path

    monkeypatch.chdir(tmp_path)
    return write


def python_net(layer):
    return textwrap.dedent(f"""
        layer {{ name: "data" type: "Input" top: "data"
          input_param {{ shape {{ dim: 4 dim: 3 }} }} }}
        layer {{ name: "square" type: "Python" bottom: "data" top: "square"
          python_param {{ module: "faults" layer: "{layer}" }} }}
    """)


def test_stock_layers_pass(net, command):
    status, out, err = command("gradcheck", net(STOCK))
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("layer ")
    assert lines[0].endswith("probes  kinks  error    verdict  where")
    checked = [line for line in lines if " ok " in line]
    assert len(checked) == 12
    assert "Accuracy" not in out  # it is in the TEST phase only


def test_one_layer_and_json(net, command, tmp_path):
    report = tmp_path / "report.json"
    status, out, _ = command("gradcheck", net(STOCK), "--layer", "ip", "--json", report)
    assert status == 0
    rows = json.loads(report.read_text())
    assert [row["blob"] for row in rows] == ["bottom 0 'pool'", "weight 0", "weight 1"]
    assert {row["verdict"] for row in rows} == {"ok"}
    assert all(0 <= row["error"] < 1e-2 and row["probes"] > 0 for row in rows)
    assert len(out.splitlines()) == 4


def test_ties_are_counted_as_kinks(net):
    """The pool's input comes from a ReLU: most windows hold several zeros."""
    found = gradcheck.gradcheck(str(net(STOCK)), layer="pool")
    assert found[0].verdict == "ok"
    assert found[0].kinks > 0
    assert "kinks" in found[0].note


def test_unknown_layer(net, command):
    status, out, err = command("gradcheck", net(STOCK), "--layer", "ip2")
    assert (status, out) == (1, "")
    assert "no layer 'ip2' in phase TRAIN" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "text", ["layer { nonsense: 1 }", "layer {", 'layer { name: "x" type: "NoSuchLayer" top: "x" }']
)
def test_broken_net(net, command, text):
    status, out, err = command("gradcheck", net(text))
    assert (status, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert "net.prototxt" in err


def test_missing_net(command, tmp_path):
    status, _, err = command("gradcheck", tmp_path / "none.prototxt")
    assert status == 1
    assert "No such file" in err


def test_right_python_layer_passes(net, command, tmp_path):
    (tmp_path / "faults.py").write_text(FAULTS)
    status, _, err = command("gradcheck", net(python_net("Right")))
    assert (status, err) == (0, "")


@pytest.mark.parametrize(
    "fault",
    ["Zero", "Nothing", "Sign", "Factor", "ForgetsTopDiff", "OneRow", "NotFinite", "Raises"],
)
def test_faults_are_found(net, command, tmp_path, fault):
    (tmp_path / "faults.py").write_text(FAULTS)
    status, out, err = command("gradcheck", net(python_net(fault)))
    assert status == 1
    assert "FAIL" in out
    assert "1 of 1 gradients wrong" in err
    if fault == "OneRow":
        assert "[3, " in out
    if fault == "NotFinite":
        assert "[1, 1]" in out
    if fault == "Raises":
        assert "no such luck" in out


def test_a_kink_is_no_failure(net, command, monkeypatch):
    found = gradcheck.gradcheck(str(net(STOCK)), layer="ip")
    found[0].verdict = gradcheck.UNCLEAR
    monkeypatch.setattr("caffe_metric.commands.gradcheck.gradcheck", lambda *_, **__: found)
    status, out, err = command("gradcheck", net(STOCK))
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == "0 of 3 gradients wrong, 1 unclear (seed 0)"
    found[1].verdict = gradcheck.FAIL
    status, _, err = command("gradcheck", net(STOCK))
    assert status == 1
    assert "1 of 3 gradients wrong, 1 unclear (seed 0)" in err
