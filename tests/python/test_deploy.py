"""`caffe-metric deploy`: a net of stock layers with the same outputs.

The oracle is NumPy on the weights; the command's own parity report is not trusted here. Norm of
rows and of images, MarginInnerProduct with its options, Dropout in place and not.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")

from caffe_metric.nets.roles import kind
from google.protobuf import text_format

import caffe

if "Norm" not in caffe.layer_type_list():
    pytest.skip("this Caffe lacks the layers: ./run build", allow_module_level=True)

INPUT = """
layer { name: "in" type: "Input" top: "data" top: "label"
  input_param { shape { dim: 3 dim: 2 dim: 5 dim: 4 } shape { dim: 3 } } }
"""
CONVOLUTION = """
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 7 kernel_size: 1 weight_filler { type: "gaussian" std: 1 } } }
"""
ROWS = """
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
  inner_product_param { num_output: 6 weight_filler { type: "gaussian" std: 1 } } }
layer { name: "drop" type: "Dropout" bottom: "fc" top: "fc" }
layer { name: "drop2" type: "Dropout" bottom: "fc" top: "dropped" }
layer { name: "norm" type: "Norm" bottom: "dropped" top: "norm" }
layer { name: "loss" type: "TripletLoss" bottom: "norm" bottom: "label" top: "loss" }
"""


def margin(options=""):
    return f"""
layer {{ name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
  inner_product_param {{ num_output: 6 weight_filler {{ type: "gaussian" std: 1 }} }} }}
layer {{ name: "logits" type: "MarginInnerProduct" bottom: "fc" bottom: "label" top: "logits"
  top: "lambda" margin_inner_product_param {{ num_output: 4
  weight_filler {{ type: "gaussian" std: 1 }} {options} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "logits" bottom: "label" top: "loss" }}
"""


@pytest.fixture
def deploy(tmp_path, command):
    """Deploys a net with random weights: (status, out, err, the trained net's weights, folder)."""

    def run(text, *arguments, blob=None):
        (tmp_path / "net.prototxt").write_text(text)
        net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
        net.save(str(tmp_path / "w.caffemodel"))
        weights = {name: [b.data.copy() for b in blobs] for name, blobs in net.params.items()}
        arguments = [*arguments, *(["--blob", blob] if blob else [])]
        status, out, err = command(
            "deploy", "--net", tmp_path / "net.prototxt",
            "--weights", tmp_path / "w.caffemodel", "-o", tmp_path / "out", *arguments,
        )  # fmt: skip
        return status, out, err, weights, tmp_path / "out"

    return run


def outputs(folder, blob, images):
    net = caffe.Net(
        str(folder / "deploy.prototxt"), caffe.TEST, weights=str(folder / "deploy.caffemodel")
    )
    net.blobs["data"].reshape(*images.shape)
    net.blobs["data"].data[...] = images
    net.forward()
    return net.blobs[blob].data.copy()


def types(folder):
    from caffe.proto import caffe_pb2

    net = text_format.Parse((folder / "deploy.prototxt").read_text(), caffe_pb2.NetParameter())
    assert all(kind(layer) == layer.type for layer in net.layer)
    return [layer.type for layer in net.layer]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_norm_of_rows(deploy, rng):
    status, out, err, weights, folder = deploy(INPUT + ROWS)
    assert (status, err) == (0, "")
    assert "norm of 6 numbers" in out
    assert types(folder) == ["Input", "InnerProduct", "Reduction", "Power", "Scale"]
    images = rng.normal(size=(5, 2, 5, 4))
    expected = unit(images.reshape(5, -1) @ weights["fc"][0].T)
    np.testing.assert_allclose(outputs(folder, "norm", images), expected, atol=1e-5)
    assert json.loads((folder / "parity.json").read_text())["equal"]


def test_a_net_for_training_alone(deploy, tmp_path, command):
    """Its data layer stands in TRAIN only: the shape comes from it, or from --shape."""
    status, *_ = deploy(INPUT + ROWS)
    assert status == 0
    source = """layer { name: "in" type: "DummyData" top: "data" top: "label"
  include { phase: TRAIN } dummy_data_param { shape { dim: 3 dim: 2 dim: 5 dim: 4 }
  shape { dim: 3 } } }"""
    (tmp_path / "net.prototxt").write_text(source + ROWS)
    for more in ([], ["--shape", "2,5,4"]):
        status, out, err = command(
            "deploy", "--net", tmp_path / "net.prototxt",
            "--weights", tmp_path / "w.caffemodel", "-o", tmp_path / "again", *more,
        )  # fmt: skip
        assert status == 0, err
        assert types(tmp_path / "again") == types(tmp_path / "out")


def test_zero_rows_stay_zero(deploy):
    folder = deploy(INPUT + ROWS)[-1]
    assert not outputs(folder, "norm", np.zeros((2, 2, 5, 4))).any()


def test_norm_along_the_channels_of_an_image(deploy, rng):
    text = INPUT + CONVOLUTION + 'layer { name: "n" type: "Norm" bottom: "conv" top: "n" }'
    status, _, err, weights, folder = deploy(text, blob="n")
    assert (status, err) == (0, "")
    assert types(folder) == ["Input", "Convolution", "LRN"]
    images = rng.normal(size=(3, 2, 5, 4))
    expected = unit(np.einsum("oc,nchw->nohw", weights["conv"][0][:, :, 0, 0], images))
    np.testing.assert_allclose(outputs(folder, "n", images), expected, atol=1e-5)


@pytest.mark.parametrize(
    "options", ["", "type: QUADRUPLE base: 10", "scale: 3 normalize_features: true"]
)
def test_logits(deploy, rng, options):
    status, _, err, weights, folder = deploy(INPUT + margin(options), blob="logits")
    assert (status, err) == (0, "")
    images = rng.normal(size=(5, 2, 5, 4))
    features = images.reshape(5, -1) @ weights["fc"][0].T
    if "normalize" in options:
        features = 3 * unit(features)
    expected = features @ unit(weights["logits"][0]).T
    np.testing.assert_allclose(outputs(folder, "logits", images), expected, rtol=1e-4, atol=1e-4)


def test_the_embedding_is_what_the_loss_reads(deploy):
    status, out, _, _, folder = deploy(INPUT + margin())
    assert status == 0
    assert "fc of 6 numbers" in out
    assert types(folder) == ["Input", "InnerProduct"]


@pytest.mark.parametrize(
    ("text", "blob", "message"),
    [
        (INPUT + CONVOLUTION, None, "no layer of ours: say by --blob"),
        (INPUT + ROWS, "nothing", "blob 'nothing' must come from one Data or Input layer"),
        (INPUT + ROWS, "loss", "a loss is not deployed"),
    ],
)
def test_what_cannot_be_deployed(deploy, text, blob, message):
    status, out, err, _, folder = deploy(text, blob=blob)
    assert (status, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1
    assert not folder.exists()
