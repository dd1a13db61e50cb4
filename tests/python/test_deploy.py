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


NORM_OF_ROWS = ["Power", "InnerProduct", "Power", "Eltwise"]


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
    assert types(folder) == ["Input", "InnerProduct", *NORM_OF_ROWS]
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
    assert types(folder) == ["Input", "Convolution", "Power", "Convolution", "Power", "Eltwise"]
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


def test_the_output_of_a_dropout_is_what_it_read(deploy, rng):
    status, out, err, weights, folder = deploy(INPUT + ROWS, blob="dropped")
    assert (status, err) == (0, "")
    assert "fc of 6 numbers" in out
    images = rng.normal(size=(2, 2, 5, 4))
    expected = images.reshape(2, -1) @ weights["fc"][0].T
    np.testing.assert_allclose(outputs(folder, "fc", images), expected, rtol=1e-4, atol=1e-4)


PYTHON = """
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
  inner_product_param { num_output: 6 weight_filler { type: "gaussian" std: 1 } } }
layer { name: "norm" type: "Python" bottom: "fc" top: "fc"
  python_param { module: "caffe_metric.layers" layer: "NormLayer" param_str: "eps: 1.0e-6" } }
layer { name: "logits" type: "Python" bottom: "fc" bottom: "label" top: "logits"
  python_param { module: "caffe_metric.layers" layer: "MarginInnerProductLayer"
    param_str: "{num_output: 4, type: TRIPLE, scale: 2, weight_filler: {type: gaussian}}" } }
"""


@pytest.mark.parametrize("blob", [None, "logits"])
def test_python_layers(deploy, rng, blob):
    """The embedding is what the head reads: fc, after a Norm in place."""
    status, _, err, weights, folder = deploy(INPUT + PYTHON, blob=blob)
    assert (status, err) == (0, "")
    images = rng.normal(size=(3, 2, 5, 4))
    expected = unit(images.reshape(3, -1) @ weights["fc"][0].T)
    if blob:
        expected = 2 * expected @ unit(weights["logits"][0]).T
    found = outputs(folder, blob or "fc", images)
    np.testing.assert_allclose(found, expected, atol=1e-5)


OLD = """
input: "data" input_dim: 2 input_dim: 2 input_dim: 5 input_dim: 4
layers { name: "fc" type: INNER_PRODUCT bottom: "data" top: "fc" blobs_lr: 1 blobs_lr: 2
  inner_product_param { num_output: 6 weight_filler { type: "gaussian" std: 1 } } }
layers { name: "relu" type: RELU bottom: "fc" top: "fc" }
layers { name: "drop" type: DROPOUT bottom: "fc" top: "fc" dropout_param { dropout_ratio: 0.5 } }
"""


def test_a_net_of_2014(deploy, rng):
    status, _, err, weights, folder = deploy(OLD, blob="fc")
    assert (status, err) == (0, "")
    images = rng.normal(size=(3, 2, 5, 4))
    expected = np.maximum(images.reshape(3, -1) @ weights["fc"][0].T, 0)
    np.testing.assert_allclose(outputs(folder, "fc", images), expected, rtol=1e-4, atol=1e-4)
    assert "layers" not in (folder / "deploy.prototxt").read_text()


@pytest.fixture
def pictures(tmp_path, rng):
    """A list of five images, 9 wide and 8 high."""
    from PIL import Image

    for number in range(5):
        pixels = rng.integers(0, 256, (8, 9, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    (tmp_path / "list.txt").write_text("".join(f"{tmp_path}/{n}.png {n % 2}\n" for n in range(5)))
    return tmp_path


TRAIN_ONLY = """
layer {{ name: "data" type: "ImageData" top: "data" top: "label" include {{ phase: TRAIN }}
  transform_param {{ crop_size: 5 mirror: true scale: 0.0078125 mean_value: 127.5 }}
  image_data_param {{ source: "{folder}/list.txt" batch_size: 5 new_width: 7 new_height: 6 }} }}
layer {{ name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
  inner_product_param {{ num_output: 6 weight_filler {{ type: "gaussian" std: 1 }} }} }}
layer {{ name: "norm" type: "Norm" bottom: "fc" top: "norm" }}
layer {{ name: "loss" type: "TripletLoss" bottom: "norm" bottom: "label" top: "loss" }}
"""


def test_how_an_image_becomes_the_input(pictures, command):
    """Data for TRAIN alone; resize, crop, mean and scale are said, and serve the Embedder."""
    import caffe_metric as cm
    from PIL import Image

    (pictures / "net.prototxt").write_text(TRAIN_ONLY.format(folder=pictures))
    net = caffe.Net(str(pictures / "net.prototxt"), caffe.TRAIN)
    net.save(str(pictures / "w.caffemodel"))
    arguments = ("--weights", pictures / "w.caffemodel", "-o", pictures / "out")
    status, _, err = command("deploy", "--net", pictures / "net.prototxt", *arguments)
    assert (status, err) == (0, "")
    said = json.loads((pictures / "out" / "preprocess.json").read_text())
    assert said == {
        "input": "data", "output": "norm", "channels": 3, "height": 5, "width": 5, "order": "BGR",
        "resize": [7, 6], "crop": 5, "mean_value": [127.5] * 3, "mean_file": "", "scale": 0.0078125,
        "unit_output": True, "source": "data (ImageData)",
    }  # fmt: skip
    guide = (pictures / "out" / "README.md").read_text()
    assert "1. resize to a width of 7 and a height of 6\n2. cut 5 x 5 out of the middle" in guide
    assert "3. subtract 127.5, 127.5, 127.5 from the channels, of pixels 0 to 255" in guide
    assert "4. multiply by 0.0078125\n" in guide
    paths = [pictures / f"{number}.png" for number in range(5)]
    rows = []
    for path in paths:
        image = Image.open(path).resize((7, 6), Image.Resampling.BILINEAR)
        pixels = np.asarray(image).astype(np.float64)[:, :, ::-1].transpose(2, 0, 1)
        rows.append(((pixels[:, 0:5, 1:6] - 127.5) / 128).ravel())
    expected = unit(np.array(rows) @ net.params["fc"][0].data.T)
    faces = cm.Embedder(
        pictures / "out" / "deploy.prototxt", pictures / "out" / "deploy.caffemodel"
    )
    np.testing.assert_allclose(faces(paths), expected, atol=1e-5)


def test_a_mean_image_comes_along(pictures, command):
    from caffe.proto import caffe_pb2

    text = TRAIN_ONLY.format(folder=pictures).replace(
        "mean_value: 127.5", 'mean_file: "m.binaryproto"'
    )
    text = text.replace("crop_size: 5", "").replace("new_width: 7 new_height: 6", "")
    (pictures / "net.prototxt").write_text(text.replace("m.binary", f"{pictures}/m.binary"))
    mean = np.arange(8 * 9 * 3, dtype=np.float32).reshape(3, 8, 9)
    blob = caffe_pb2.BlobProto(num=1, channels=3, height=8, width=9, data=mean.ravel())
    (pictures / "m.binaryproto").write_bytes(blob.SerializeToString())
    net = caffe.Net(str(pictures / "net.prototxt"), caffe.TRAIN)
    net.save(str(pictures / "w.caffemodel"))
    (pictures / "net.prototxt").write_text(text)  # beside the net, wherever it is deployed
    arguments = ("--weights", pictures / "w.caffemodel", "--shape", "3,8,9", "-o", pictures / "out")
    status, _, err = command("deploy", "--net", pictures / "net.prototxt", *arguments)
    assert (status, err) == (0, "")
    said = json.loads((pictures / "out" / "preprocess.json").read_text())
    assert said["mean_file"] == "mean.binaryproto"
    from caffe_metric.deployment import preprocess

    np.testing.assert_array_equal(preprocess.read_mean(pictures / "out/mean.binaryproto"), mean)


def test_data_that_is_not_here(tmp_path, deploy, command):
    deploy(INPUT + ROWS)
    (tmp_path / "net.prototxt").write_text(TRAIN_ONLY.format(folder=tmp_path))
    arguments = ("--weights", tmp_path / "w.caffemodel", "-o", tmp_path / "other")
    status, _, err = command("deploy", "--net", tmp_path / "net.prototxt", *arguments)
    assert (status, err.count("\n")) == (1, 1)
    assert "layer 'data' does not run here" in err
    assert "give the shape of an image by --shape C,H,W" in err
    assert not (tmp_path / "other").exists()


def test_weights_that_are_missing(tmp_path, deploy, command):
    deploy(INPUT + ROWS)
    (tmp_path / "net.prototxt").write_text((INPUT + ROWS).replace('name: "fc"', 'name: "fc8"'))
    arguments = ("--weights", tmp_path / "w.caffemodel", "-o", tmp_path / "other")
    status, _, err = command("deploy", "--net", tmp_path / "net.prototxt", *arguments)
    assert (status, err.count("\n")) == (1, 1)
    assert "w.caffemodel: holds no weights of layer fc8" in err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("text", "blob", "message"),
    [
        (INPUT + CONVOLUTION, None, "no layer of ours: say by --blob"),
        (
            INPUT + ROWS,
            "nothing",
            "no blob 'nothing': it has data, dropped, fc, label, loss, norm",
        ),
        (INPUT + ROWS, "nrom", "no blob 'nrom': did you mean 'norm'?"),
        (INPUT + ROWS, "loss", "a loss is not deployed"),
    ],
)
def test_what_cannot_be_deployed(deploy, text, blob, message):
    status, out, err, _, folder = deploy(text, blob=blob)
    assert (status, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1
    assert not folder.exists()
