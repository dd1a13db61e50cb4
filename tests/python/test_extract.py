"""`caffe-metric extract`: the embeddings that Caffe computes, of every image, in order.

The oracle computes the small nets by NumPy from the weights and the images themselves. Numbers of
images that the batch does not divide, nets of both kinds, and each way to be wrong.
"""

from __future__ import annotations

import json

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


IDENTITY = """
layer { name: "train" type: "Python" top: "data" top: "label"
  python_param { module: "caffe_metric.layers" layer: "IdentityDataLayer"
    param_str: "{source: nowhere, batch_size: 4, layout: SHUFFLED, PICTURE}" } }
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "embedding" FULLY }
""".replace("FULLY", FULLY)


@pytest.fixture
def photos(tmp_path, rng):
    """A folder of two people, five gray pictures each; the pixels, in the order of names."""
    pixels = rng.integers(0, 256, (10, 7, 6)).astype(np.uint8)
    for row, image in enumerate(pixels):
        path = tmp_path / "photos" / "ab"[row // 5] / f"{row} x.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return tmp_path / "photos", pixels


def weights_of(folder, shape):
    """Of a net with one InnerProduct `fc` on images of a shape; saved as w.caffemodel."""
    dims = " ".join(f"dim: {number}" for number in (1, *shape))
    text = f'layer {{ name: "in" type: "Input" top: "image" input_param {{ shape {{ {dims} }} }} }}'
    text += f'layer {{ name: "fc" type: "InnerProduct" bottom: "image" top: "embedding" {FULLY} }}'
    (folder / "plain.prototxt").write_text(text)
    net = caffe.Net(str(folder / "plain.prototxt"), caffe.TEST)
    net.save(str(folder / "w.caffemodel"))
    return [blob.data.copy() for blob in net.params["fc"]]


def run(command, folder, net, data, *more):
    return command(
        "extract", "--net", folder / net, "--weights", folder / "w.caffemodel", "--data", data,
        "--blob", "embedding", "-o", folder / "f.npz", *more,
    )  # fmt: skip


def test_an_identity_data_net_says_how_images_are_read(photos, tmp_path, command):
    """Its crop, means and scale; a folder as data; an odd row of the crop is left below."""
    folder, pixels = photos
    (tmp_path / "net.prototxt").write_text(
        IDENTITY.replace("PICTURE", "gray: true, crop_size: 4, mean_value: 9, scale: 0.5")
    )
    weights, bias = weights_of(tmp_path, (1, 4, 4))
    assert run(command, tmp_path, "net.prototxt", folder, "--batch", "4")[0] == 0
    cropped = pixels[:, 1:5, 1:5].reshape(10, -1).astype(float)
    with np.load(tmp_path / "f.npz") as found:
        expected = (cropped - 9) * 0.5 @ weights.T + bias
        np.testing.assert_allclose(found["embeddings"], expected, rtol=1e-4, atol=1e-3)
        assert found["labels"].tolist() == [0] * 5 + [1] * 5
        assert found["names"].tolist() == [f"{'ab'[row // 5]}/{row} x.png" for row in range(10)]


def test_caffe_crops_the_same_middle(photos, tmp_path, command):
    """Of an LMDB, by Caffe's own Data layer and by ours."""
    folder, pixels = photos
    records = [("x", datum.encode(image[None], row)) for row, image in enumerate(pixels)]
    write_lmdb(tmp_path / "db", records)
    data = 'layer { name: "d" type: "Data" top: "image" top: "label" transform_param '
    data += '{ crop_size: 4 } data_param { source: "x" batch_size: 1 backend: LMDB } }\n'
    weights_of(tmp_path, (1, 4, 4))
    text = (tmp_path / "plain.prototxt").read_text()
    (tmp_path / "data.prototxt").write_text(data + text[text.index('layer { name: "fc"') :])
    found = []
    for net, more in [("data.prototxt", ()), ("plain.prototxt", ("--crop", "4"))]:
        assert run(command, tmp_path, net, tmp_path / "db", *more)[0] == 0
        with np.load(tmp_path / "f.npz") as arrays:
            found.append(arrays["embeddings"])
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_a_net_on_a_database_takes_a_list(photos, tmp_path, command, monkeypatch):
    """Size and channels are those of the database that it was trained on."""
    folder, pixels = photos
    monkeypatch.chdir(tmp_path)
    write_lmdb("db", [("x", datum.encode(np.zeros((1, 7, 6), np.uint8), 0))])
    data = 'layer { name: "d" type: "Data" top: "image" top: "label" '
    data += 'data_param { source: "db" batch_size: 1 backend: LMDB } }\n'
    weights, bias = weights_of(tmp_path, (1, 7, 6))
    text = (tmp_path / "plain.prototxt").read_text()
    (tmp_path / "data.prototxt").write_text(data + text[text.index('layer { name: "fc"') :])
    twice = Image.fromarray(pixels[0].repeat(2, axis=0).repeat(2, axis=1)).convert("RGB")
    twice.save("twice.png")
    (tmp_path / "list.txt").write_text("twice.png 3\n")
    assert run(command, tmp_path, "data.prototxt", "list.txt")[0] == 0
    with np.load(tmp_path / "f.npz") as found:
        image = np.asarray(twice.convert("L").resize((6, 7), Image.Resampling.BILINEAR))
        expected = image.ravel().astype(float) @ weights.T + bias
        np.testing.assert_allclose(found["embeddings"][0], expected, rtol=0.02, atol=0.5)


def test_a_deployed_folder_says_all(photos, tmp_path, command):
    folder, pixels = photos
    deployed = tmp_path / "deployed"
    deployed.mkdir()
    weights, bias = weights_of(tmp_path, (1, 7, 6))
    (tmp_path / "plain.prototxt").rename(deployed / "deploy.prototxt")
    (tmp_path / "w.caffemodel").rename(deployed / "deploy.caffemodel")
    numbers = {"input": "image", "output": "embedding", "channels": 1, "height": 7, "width": 6}
    numbers.update(order="gray", resize=None, crop=0, mean_value=[9.0], mean_file="", scale=0.5)
    (deployed / "preprocess.json").write_text(json.dumps(numbers))
    out = tmp_path / "f.npz"
    status, said, err = command("extract", "--net", deployed, "--data", folder, "-o", out)
    assert (status, err) == (0, "")
    with np.load(out) as found:
        expected = (pixels.reshape(10, -1).astype(float) - 9) * 0.5 @ weights.T + bias
        np.testing.assert_allclose(found["embeddings"], expected, rtol=1e-4, atol=1e-3)


def test_images_that_do_not_fit_are_said_to(photos, tmp_path, command):
    folder, _ = photos
    weights_of(tmp_path, (3, 8, 8))
    status, _, err = run(command, tmp_path, "plain.prototxt", folder)
    assert (status, err.count("\n")) == (1, 1)
    assert "images give 3x7x6 (channels, height, width), the net takes 3x8x8: see --size" in err
    assert run(command, tmp_path, "plain.prototxt", folder, "--size", "8x8")[0] == 0
    status, _, err = run(command, tmp_path, "plain.prototxt", folder, "--size", "8x8", "--gray")
    assert "images give 1x8x8" in err


def test_the_root_folder_of_the_net(photos, tmp_path, command):
    folder, pixels = photos
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/list.txt").write_text("a/0 x.png 7\n")
    weights, bias = weights_of(tmp_path, (3, 7, 6))
    data = 'layer { name: "d" type: "ImageData" top: "image" top: "label" image_data_param '
    data += f'{{ source: "x" root_folder: "{folder}/" batch_size: 1 }} }}\n'
    text = (tmp_path / "plain.prototxt").read_text()
    (tmp_path / "data.prototxt").write_text(data + text[text.index('layer { name: "fc"') :])
    expected = np.tile(pixels[0].ravel(), 3).astype(float) @ weights.T + bias
    for net, more in [("data.prototxt", ()), ("plain.prototxt", ("--root", folder))]:
        assert run(command, tmp_path, net, tmp_path / "lists/list.txt", *more)[0] == 0
        with np.load(tmp_path / "f.npz") as found:
            np.testing.assert_allclose(found["embeddings"][0], expected, rtol=1e-4, atol=1e-3)
            assert found["labels"].tolist() == [7]


def test_embeddings_are_not_held_in_memory(photos, tmp_path):
    from caffe_metric.evaluation.extraction import extract

    folder, _ = photos
    weights_of(tmp_path, (3, 7, 6))
    net, weights = tmp_path / "plain.prototxt", tmp_path / "w.caffemodel"
    embeddings, _, _ = extract(net, weights, folder, "embedding")
    assert isinstance(embeddings, np.memmap)


def test_the_one_output_needs_no_name(photos, tmp_path, command):
    folder, _ = photos
    weights_of(tmp_path, (3, 7, 6))
    base = ("--net", tmp_path / "plain.prototxt", "--weights", tmp_path / "w.caffemodel")
    assert command("extract", *base, "--data", folder, "-o", tmp_path / "f.npz")[0] == 0
    text = (tmp_path / "plain.prototxt").read_text()
    text += 'layer { name: "r" type: "ReLU" bottom: "image" top: "other" }'
    (tmp_path / "plain.prototxt").write_text(text)
    status, _, err = command("extract", *base, "--data", folder, "-o", tmp_path / "f.npz")
    assert status == 1
    assert "say by --blob which blob is the embedding; there are embedding, other" in err


def test_names_of_other_databases_stay_whole(tmp_path):
    import lmdb
    from caffe_metric.data.lmdb_file import lmdb_names

    keys = ["00000012_ann/1.png", "ann_lee_1.png", "12_ann", "123456789_x_y"]
    with lmdb.open(str(tmp_path / "db")) as env, env.begin(write=True) as transaction:
        for key in keys:
            transaction.put(key.encode(), b"")
    assert sorted(lmdb_names(tmp_path / "db")) == ["12_ann", "ann/1.png", "ann_lee_1.png", "x_y"]
