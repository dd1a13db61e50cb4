"""`caffe-metric extract`: the embeddings that Caffe computes, of every image, in order.

The oracle computes the small nets by NumPy from the weights and the images themselves. Numbers of
images that the batch does not divide, nets of both kinds, and each way to be wrong.
"""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")

from caffe.proto import caffe_pb2
from caffe_metric.data import datum
from caffe_metric.data.lmdb_file import write_lmdb
from caffe_metric.evaluation.extraction import extraction_net
from caffe_metric.support.errors import UserError
from google.protobuf import text_format
from PIL import Image

import caffe

FULLY = 'inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 0.01 } }'
TRAINING = """
layer { name: "train" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  data_param { source: "nowhere" batch_size: 64 backend: LMDB } }
layer { name: "test" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { scale: 0.5 mean_value: 10 crop_size: 4 mirror: true }
  data_param { source: "nowhere" batch_size: 64 backend: LMDB } }
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "embedding" FULLY }
layer { name: "relu" type: "ReLU" bottom: "embedding" top: "embedding" }
layer { name: "more" type: "InnerProduct" bottom: "embedding" top: "logits" FULLY }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "logits" bottom: "label" top: "loss" }
""".replace("FULLY", FULLY)
DEPLOY = """
layer { name: "in" type: "Input" top: "image"
  input_param { shape { dim: 1 dim: 1 dim: 4 dim: 4 } } }
layer { name: "fc" type: "InnerProduct" bottom: "image" top: "embedding" FULLY }
""".replace("FULLY", FULLY)


@pytest.fixture
def world(tmp_path, rng):
    """23 gray images of 6 x 6 in an LMDB, both nets, and their weights."""
    images = rng.integers(0, 256, (23, 1, 6, 6)).astype(np.uint8)
    labels = np.arange(23) % 5 + 3
    records = [
        (f"image{row}", datum.encode(image, int(label)))
        for row, (image, label) in enumerate(zip(images, labels))
    ]
    write_lmdb(tmp_path / "data.lmdb", records)
    (tmp_path / "net.prototxt").write_text(TRAINING)
    (tmp_path / "deploy.prototxt").write_text(DEPLOY)
    net = caffe.Net(str(tmp_path / "deploy.prototxt"), caffe.TEST)
    net.save(str(tmp_path / "w.caffemodel"))
    weights, bias = (blob.data.copy() for blob in net.params["fc"])
    cropped = images[:, :, 1:5, 1:5].reshape(23, -1).astype(np.float64)
    return tmp_path, labels, ((cropped - 10) * 0.5) @ weights.T + bias


def call(command, folder, net="net.prototxt", blob="embedding", *more):
    return command(
        "extract", "--net", folder / net, "--weights", folder / "w.caffemodel",
        "--data", folder / "data.lmdb", "--blob", blob, "-o", folder / "f.npz", *more,
    )  # fmt: skip


@pytest.mark.parametrize("batch", [1, 5, 23, 100])
def test_a_training_net(world, command, batch):
    folder, labels, expected = world
    status, out, err = call(command, folder, "net.prototxt", "embedding", "--batch", batch)
    assert (status, err) == (0, "")
    assert "23 embeddings of 3 numbers" in out
    with np.load(folder / "f.npz") as found:
        np.testing.assert_allclose(found["embeddings"], np.maximum(expected, 0), atol=1e-4)
        assert found["embeddings"].dtype == np.float32
        assert found["labels"].tolist() == labels.tolist()
        assert found["names"].tolist() == [f"image{row}" for row in range(23)]


def test_a_net_for_training_alone(world, command):
    """Its data layer stands in TRAIN only, or in a stage of TEST."""
    folder, labels, expected = world
    for rule in ("phase: TRAIN", "phase: TEST stage: 'on-test'"):
        text = TRAINING.partition('layer { name: "test"')[2].replace("phase: TEST", rule)
        (folder / "net.prototxt").write_text('layer { name: "test"' + text)
        assert call(command, folder)[0] == 0
        with np.load(folder / "f.npz") as found:
            np.testing.assert_allclose(found["embeddings"], np.maximum(expected, 0), atol=1e-4)
            assert found["labels"].tolist() == labels.tolist()


def test_a_net_and_a_model_of_2014(world, command):
    folder, _, expected = world
    old = """
layers { name: "test" type: DATA top: "data" top: "label"
  data_param { source: "nowhere" batch_size: 64 backend: LMDB crop_size: 4 }
  transform_param { scale: 0.5 mean_value: 10 } }
layers { name: "fc" type: INNER_PRODUCT bottom: "data" top: "embedding"
  inner_product_param { num_output: 3 } }
"""
    (folder / "net.prototxt").write_text(old)
    model = caffe_pb2.NetParameter.FromString((folder / "w.caffemodel").read_bytes())
    oldest = caffe_pb2.NetParameter()
    oldest.layers.add(name="fc", type=14).blobs.extend(model.layer[1].blobs)
    (folder / "w.caffemodel").write_bytes(oldest.SerializeToString())
    assert call(command, folder)[0] == 0
    with np.load(folder / "f.npz") as found:
        np.testing.assert_allclose(found["embeddings"], expected, atol=1e-4)


def test_a_deploy_net(world, command):
    folder, labels, expected = world
    more = ("--scale", "0.5", "--mean", "10", "--crop", "4")
    assert call(command, folder, "deploy.prototxt", "embedding", *more)[0] == 0
    with np.load(folder / "f.npz") as found:
        np.testing.assert_allclose(found["embeddings"], expected, atol=1e-4)
        assert found["labels"].tolist() == labels.tolist()


def test_a_list_of_images(world, command, rng):
    folder, _, _ = world
    image = rng.integers(0, 256, (6, 6)).astype(np.uint8)
    (folder / "photos").mkdir()
    Image.fromarray(image).save(folder / "photos/a.png")
    (folder / "list.txt").write_text("photos/a.png 4\n" * 3)
    text = DEPLOY.replace("dim: 1 dim: 1 dim: 4", "dim: 1 dim: 3 dim: 4")
    (folder / "deploy.prototxt").write_text(text)
    net = caffe.Net(str(folder / "deploy.prototxt"), caffe.TEST)
    net.save(str(folder / "w.caffemodel"))
    status, _, err = command(
        "extract", "--net", folder / "deploy.prototxt", "--weights", folder / "w.caffemodel",
        "--data", folder / "list.txt", "--blob", "embedding", "-o", folder / "f.npz",
        "--crop", "4",
    )  # fmt: skip
    assert (status, err) == (0, "")
    weights, bias = (blob.data for blob in net.params["fc"])
    expected = np.tile(image[1:5, 1:5].ravel(), 3) @ weights.T + bias
    with np.load(folder / "f.npz") as found:
        np.testing.assert_allclose(found["embeddings"], [expected] * 3, atol=1e-3)
        assert found["labels"].tolist() == [4] * 3
        assert found["names"].tolist() == ["photos/a.png"] * 3


def test_only_what_the_blob_needs_is_built():
    net = text_format.Parse(TRAINING, caffe_pb2.NetParameter())
    found, label = extraction_net(net, "list.txt", "embedding")
    assert [layer.name for layer in found.layer] == ["test", "fc", "relu"]
    assert label == "label"
    assert not found.layer[0].transform_param.mirror
    assert len(net.layer) == 6  # the caller's net is as it was


def test_an_unknown_blob_names_the_known():
    net = text_format.Parse(TRAINING, caffe_pb2.NetParameter())
    with pytest.raises(UserError, match=r"no blob 'feat'; it has data, embedding, label, logits"):
        extraction_net(net, "list.txt", "feat")


def test_a_net_with_two_inputs_is_refused():
    text = """layer { name: "in" type: "Input" top: "a" top: "b" }
    layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "embedding" }"""
    net = text_format.Parse(text, caffe_pb2.NetParameter())
    with pytest.raises(UserError, match="one Data, ImageData or Input layer"):
        extraction_net(net, "list.txt", "embedding")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blob": "feat"}, "no blob 'feat'"),
        ({"net": "missing.prototxt"}, "missing.prototxt"),
        ({"text": "layer { nmae: 3 }"}, "nmae"),
        ({"text": TRAINING.replace("crop_size: 4", "crop_size: 9")}, "Check failed"),
        ({"text": TRAINING.replace("num_output: 3", "num_output: 2")}, "shape mismatch"),
        ({"weights": None}, "w.caffemodel: no such file"),
    ],
)
def test_failures_are_caffes_last_words_in_one_line(world, command, change, message):
    folder, _, _ = world
    if "text" in change:
        (folder / "net.prototxt").write_text(change.pop("text"))
    if "weights" in change:
        (folder / "w.caffemodel").unlink()
        change = {}
    status, out, err = call(command, folder, **change)
    assert (status, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (folder / "f.npz").exists()


def test_a_list_as_people_write_them(world, command, rng):
    """A byte order mark, tabs, names with blanks, absolute names: Caffe itself reads none of them.

    Its ImageData takes a line without a blank for a name, and 0 for the label.
    """
    folder, _, _ = world
    image = rng.integers(0, 256, (6, 6)).astype(np.uint8)
    (folder / "Ann Lee").mkdir()
    Image.fromarray(image).save(folder / "Ann Lee/my photo.png")
    absolute = folder / "Ann Lee/my photo.png"
    (folder / "list.txt").write_bytes(
        f"\ufeffAnn Lee/my photo.png\t4\r\n{absolute}\t5\r\n".encode()
    )
    text = DEPLOY.replace("dim: 1 dim: 1 dim: 4", "dim: 1 dim: 3 dim: 4")
    (folder / "deploy.prototxt").write_text(text)
    caffe.Net(str(folder / "deploy.prototxt"), caffe.TEST).save(str(folder / "w.caffemodel"))
    status, _, err = command(
        "extract", "--net", folder / "deploy.prototxt", "--weights", folder / "w.caffemodel",
        "--data", folder / "list.txt", "--blob", "embedding", "-o", folder / "f.npz",
        "--crop", "4",
    )  # fmt: skip
    assert (status, err) == (0, "")
    with np.load(folder / "f.npz") as found:
        assert found["labels"].tolist() == [4, 5]
        assert found["names"].tolist() == ["Ann Lee/my photo.png", str(absolute)]
        np.testing.assert_array_equal(*found["embeddings"])
