"""Deployed nets in Caffe, OpenCV's dnn and onnxruntime: the numbers of the training net.

The nets hold every layer that nets of faces are made of, at awkward sizes. The expected numbers are
the training net's, run here; the command's own parity report is compared with them.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")
pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

import cv2
import onnxruntime
from harness import need

import caffe

SHAPE = (3, 19, 16)  # odd, so that poolings round up
GAUSS = 'weight_filler { type: "gaussian" std: 0.3 } bias_filler { type: "uniform" }'


def conv(name, bottom, outputs=6, more="kernel_size: 3 pad: 1", kind="Convolution", top=None):
    return (
        f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{top or name}" '
        f"convolution_param {{ num_output: {outputs} {more} {GAUSS} }} }}\n"
    )


def layer(name, kind, bottom, more="", top=None):
    bottoms = " ".join(f'bottom: "{one}"' for one in bottom.split())
    tops = " ".join(f'top: "{one}"' for one in (top or name).split())
    return f'layer {{ name: "{name}" type: "{kind}" {bottoms} {tops} {more} }}\n'


def pool(name, bottom, more):
    return layer(name, "Pooling", bottom, f"pooling_param {{ {more} }}")


BN = "batch_norm_param { use_global_stats: true eps: 0.001 }"
FILLED = 'scale_param { bias_term: true filler { type: "uniform" min: 0.5 max: 2 } '
FILLED += 'bias_filler { type: "uniform" } }'
FC = f"inner_product_param {{ num_output: 7 {GAUSS} }}"
NORM = layer("unit", "Norm", "fc")

NETS = {
    # SphereFace's and ResFace's: PReLU, sums, no normalisation between.
    "resface": conv("c1", "data", more="kernel_size: 3 stride: 2 pad: 1")
    + layer("p1", "PReLU", "c1", 'prelu_param { filler { type: "uniform" } }', "c1")
    + conv("c2", "c1")
    + layer("p2", "PReLU", "c2", "prelu_param { channel_shared: true }", "c2")
    + layer("sum", "Eltwise", "c1 c2", "eltwise_param { coeff: 0.5 coeff: -2 }")
    + layer("fc", "InnerProduct", "sum", FC)
    + NORM,
    # MobileFaceNet's: groups, batch normalisation, a product by groups at the end.
    "mobile": conv("c1", "data", more="kernel_size: 3 stride: 2 bias_term: false")
    + layer("b1", "BatchNorm", "c1", BN, "c1")
    + layer("s1", "Scale", "c1", FILLED, "c1")
    + layer("r1", "ReLU", "c1", top="c1")
    + conv("dw", "c1", more="kernel_size: 3 pad: 1 group: 6")
    + layer("b2", "BatchNorm", "dw", BN, "b2")
    + layer("s2", "Scale", "b2", FILLED, "s2")
    + layer("r2", "ReLU", "s2", "relu_param { negative_slope: 0.1 }", "s2")
    + conv("gdc", "s2", more="kernel_h: 9 kernel_w: 7 group: 6")
    + layer("flat", "Flatten", "gdc")
    + layer("fc", "InnerProduct", "flat", FC)
    + NORM,
    # VGG's and the older ones: poolings that round up, LRN, Dropout of its own name.
    "vgg": conv("c1", "data", more="kernel_size: 3")
    + layer("n1", "LRN", "c1", "lrn_param { local_size: 3 alpha: 0.3 beta: 0.7 }")
    + pool("m1", "n1", "kernel_size: 3 stride: 2")
    + pool("m2", "m1", "kernel_size: 2 stride: 2 pad: 1")
    + layer("fc0", "InnerProduct", "m2", FC.replace("7", "9"))
    + layer("r", "ReLU", "fc0", top="fc0")
    + layer("drop", "Dropout", "fc0", top="dropped")
    + layer("fc", "InnerProduct", "dropped", FC)
    + NORM,
    # Branches.
    "branches": conv("c1", "data", more="kernel_size: 2 dilation: 2")
    + layer("slice", "Slice", "c1", "slice_param { axis: 1 slice_point: 2 }", "a b")
    + conv("up", "a", 4, "kernel_size: 4 stride: 2 pad: 1", "Deconvolution")
    + pool("avg", "b", "pool: AVE kernel_size: 3 stride: 2 pad: 1")
    + pool("mean", "up", "pool: AVE global_pooling: true")
    + layer("sig", "Sigmoid", "avg")
    + layer("tanh", "TanH", "mean")
    + layer("flat1", "Reshape", "sig", "reshape_param { shape { dim: 0 dim: -1 } }")
    + layer("flat2", "Flatten", "tanh")
    + layer("cat", "Concat", "flat1 flat2")
    + layer("power", "Power", "cat", "power_param { scale: 2 shift: 0.5 }", "cat")
    + layer("fc", "InnerProduct", "cat", FC)
    + NORM,
    # Along the channels of an image, and in place.
    "in place": conv("c1", "data")
    + layer("n1", "Norm", "c1", top="c1")
    + layer("fc", "InnerProduct", "c1", FC)
    + layer("n2", "Norm", "fc", top="fc"),
}


def data(shape=SHAPE, kind="Input"):
    dims = " ".join(f"dim: {side}" for side in (2, *shape))
    return (
        f'layer {{ name: "in" type: "{kind}" top: "data" top: "label" '
        f"input_param {{ shape {{ {dims} }} shape {{ dim: 2 }} }} }}\n"
    )


def head(blob):
    return layer("loss", "TripletLoss", f"{blob} label")


@pytest.fixture
def trained(tmp_path):
    """Writes a net and random weights: (files, its outputs for images)."""
    need("cpp")

    def make(text):
        path = tmp_path / "net.prototxt"
        path.write_text(text)
        caffe.set_random_seed(3)
        net = caffe.Net(str(path), caffe.TEST)
        rng = np.random.default_rng(5)
        for name, blobs in net.params.items():
            if name.startswith("b"):  # BatchNorm: mean, variance, and by what they are divided
                blobs[0].data[...] = rng.normal(size=blobs[0].data.shape)
                blobs[1].data[...] = rng.uniform(1, 3, blobs[1].data.shape)
                blobs[2].data[...] = 2
        net.save(str(tmp_path / "w.caffemodel"))

        def outputs(blob, images):
            net.blobs["data"].reshape(*images.shape)
            net.blobs["label"].reshape(len(images))
            net.blobs["data"].data[...] = images
            net.forward()
            return net.blobs[blob].data.copy()

        return ("--net", path, "--weights", tmp_path / "w.caffemodel"), outputs

    return make


def by_opencv(folder, images):
    net = cv2.dnn.readNetFromCaffe(
        str(folder / "deploy.prototxt"), str(folder / "deploy.caffemodel")
    )
    net.setInput(images)
    return net.forward()


def by_onnx(folder, output, images, file="deploy.onnx"):
    session = onnxruntime.InferenceSession(str(folder / file), providers=["CPUExecutionProvider"])
    return session.run([output], {"data": images})[0]


@pytest.mark.parametrize("fold", [False, True], ids=["", "fold"])
@pytest.mark.parametrize("name", NETS)
def test_three_runtimes_give_the_training_nets_numbers(trained, tmp_path, command, rng, name, fold):
    blob = "fc" if name == "in place" else "unit"
    files, outputs = trained(data() + NETS[name] + head(blob))
    out = tmp_path / "out"
    status, shown, err = command("deploy", *files, "--onnx", *["--fold"] * fold, "-o", out)
    assert (status, err) == (0, "")
    assert f"{blob} of 7 numbers" in shown
    images = rng.normal(size=(3, *SHAPE)).astype(np.float32)
    expected = outputs(blob, images)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, rtol=1e-5)
    for found in (by_opencv(out, images), by_onnx(out, blob, images)):
        np.testing.assert_allclose(found, expected, atol=1e-4)
    report = json.loads((out / "parity.json").read_text())
    for runtime in ("caffe", "opencv", "onnxruntime"):
        assert report[runtime]["equal"]
        assert 0 <= report[runtime]["relative_difference"] <= 1e-4
        assert report[runtime]["cosine"] == pytest.approx(1, abs=1e-6)
    assert {path.name for path in out.iterdir()} == {
        "deploy.prototxt", "deploy.caffemodel", "deploy.onnx", "parity.json", "preprocess.json",
        "README.md",
    }  # fmt: skip
    text = (out / "deploy.prototxt").read_text()
    assert "filler" not in text
    assert ("BatchNorm" in text) == (name == "mobile" and not fold)


def test_the_norm_left_to_the_host(trained, tmp_path, command, rng):
    files, outputs = trained(data() + NETS["mobile"] + head("unit"))
    out = tmp_path / "out"
    assert command("deploy", *files, "--onnx", "--norm", "drop", "-o", out)[0] == 0
    images = rng.normal(size=(2, *SHAPE)).astype(np.float32)
    expected = outputs("fc", images)
    np.testing.assert_allclose(by_onnx(out, "fc", images), expected, rtol=1e-4, atol=1e-4)
    assert "Eltwise" not in (out / "deploy.prototxt").read_text()
    assert "The host divides it" in (out / "README.md").read_text()
    assert not json.loads((out / "preprocess.json").read_text())["unit_output"]
    unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(unit, outputs("unit", images), atol=1e-6)


def test_a_norm_in_place_that_is_dropped(trained, tmp_path, command, rng):
    files, outputs = trained(data() + NETS["in place"] + head("fc"))
    out = tmp_path / "out"
    assert command("deploy", *files, "--norm", "drop", "-o", out)[0] == 0
    images = rng.normal(size=(2, *SHAPE)).astype(np.float32)
    found = by_opencv(out, images)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    assert np.abs(lengths - 1).max() > 0.1
    np.testing.assert_allclose(found / lengths, outputs("fc", images), atol=1e-5)


def test_nothing_is_written_unless_all_agree(trained, tmp_path, command, monkeypatch):
    from caffe_metric.deployment import runtimes

    def wrong(folder, output, images):
        found, version = runtimes.by_caffe(folder, output, images)
        return found * 1.001, version  # cosine 1

    monkeypatch.setitem(runtimes.RUNTIMES, "opencv", wrong)
    files, _ = trained(data() + NETS["resface"] + head("unit"))
    status, shown, err = command("deploy", *files, "-o", tmp_path / "out")
    assert (status, shown, err.count("\n")) == (1, "", 1)
    assert "nothing is written; opencv differs by 0.001" in err
    assert not (tmp_path / "out").exists()


def test_a_net_that_opencv_computes_otherwise(trained, tmp_path, command):
    """OpenCV does not look at the k of LRN."""
    text = NETS["vgg"].replace("beta: 0.7", "beta: 0.7 k: 2")
    files, _ = trained(data() + text + head("unit"))
    status, shown, err = command("deploy", *files, "-o", tmp_path / "out")
    assert (status, shown, err.count("\n")) == (1, "", 1)
    assert "nothing is written; opencv differs by" in err


def test_a_layer_that_onnx_lacks_is_named(trained, tmp_path, command):
    text = data() + conv("c1", "data") + layer("mvn", "MVN", "c1")
    text += layer("fc", "InnerProduct", "mvn", FC) + NORM + head("unit")
    files, _ = trained(text)
    status, _, err = command("deploy", *files, "--onnx", "-o", tmp_path / "out")
    assert (status, err.count("\n")) == (1, 1)
    assert "layer 'mvn': ONNX has no equal of MVN here" in err


@pytest.mark.parametrize(
    ("module", "option"), [("onnx", ["--onnx"]), ("onnxruntime", ["--int8", "images.txt"])]
)
def test_what_is_not_installed(trained, tmp_path, command, monkeypatch, module, option):
    files, _ = trained(data() + NETS["resface"] + head("unit"))
    monkeypatch.setitem(sys.modules, module, None)
    status, _, err = command("deploy", *files, *option, "-o", tmp_path / "out")
    assert (status, err.count("\n")) == (1, 1)
    assert f"needs the Python module {module}" in err
    assert "pip install 'caffe-metric[deploy]'" in err
    assert not (tmp_path / "out").exists()


def test_a_runtime_that_is_not_installed_is_left_out(trained, tmp_path, command, monkeypatch):
    files, _ = trained(data() + NETS["resface"] + head("unit"))
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert command("deploy", *files, "-o", tmp_path / "out")[0] == 0
    report = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert report["opencv"] is None
    assert report["caffe"]["equal"]
    assert "opencv" not in (tmp_path / "out" / "README.md").read_text()


def test_integers_of_eight_bits(trained, tmp_path, command, rng):
    """Calibrated on images with labels: what verification loses is said."""
    from PIL import Image

    files, outputs = trained(data((3, 12, 12)) + NETS["resface"] + head("unit"))
    lines = []
    for row in range(24):
        pixels = rng.integers(0, 60, (12, 12, 3)) + 60 * (row % 3)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{row}.png")
        lines.append(f"{row}.png {row % 3}\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    out = tmp_path / "out"
    arguments = ("--int8", tmp_path / "list.txt", "-o", out)
    status, shown, err = command("deploy", *files, *arguments)
    assert (status, err) == (0, "")
    report = json.loads((out / "parity.json").read_text())["int8"]
    assert (report["calibrated_on"], report["measured_on"]) == (24, 24)
    images = [np.asarray(Image.open(tmp_path / f"{row}.png"))[:, :, ::-1] for row in range(24)]
    images = np.float32(np.transpose(images, (0, 3, 1, 2)))
    expected, found = outputs("unit", images), by_onnx(out, "unit", images, "deploy.int8.onnx")
    cosines = (expected * found).sum(axis=1) / np.linalg.norm(found, axis=1)
    assert report["cosine"]["least"] == pytest.approx(cosines.min(), abs=1e-4)
    assert 0.9 < cosines.min() < 1 - 1e-7
    assert f"cosine {cosines.min():.4f} to the float net at least" in shown
    assert set(report["verification"]) == {"float", "int8"}
    assert (out / "deploy.int8.onnx").stat().st_size > 0
