"""`caffe-metric lint` on what a net reads, what a model fills, and on losses without a Norm.

Caffe itself, run on the same nets, is the oracle of what is called an error.
"""

from __future__ import annotations

import numpy as np
import pytest
from caffe_metric import lint
from caffe_metric.data import datum
from caffe_metric.data.conversion import convert
from caffe_metric.data.lmdb_file import write_lmdb
from caffe_metric.data.sources import Source
from caffe_metric.support import child
from PIL import Image

caffe = pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")

HEAD = """
layer { name: "data" type: "Data" top: "data" top: "label" TRANSFORM
  data_param { source: "db" batch_size: BATCH backend: LMDB } }
"""
SOFTMAX = """
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: OUTPUTS weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" LOSS }
"""


def net(transform="", batch=4, rest=""):
    return HEAD.replace("TRANSFORM", transform).replace("BATCH", str(batch)) + rest


def softmax(outputs, loss=""):
    return SOFTMAX.replace("OUTPUTS", str(outputs)).replace("LOSS", loss)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder: db, of 8 images of 6 x 5 with 3 channels and labels 0 to 3."""
    monkeypatch.chdir(tmp_path)
    image = np.zeros((3, 5, 6), np.uint8)
    write_lmdb("db", [("x", datum.encode(image, label)) for label in (0, 1, 2, 3) * 2])
    return tmp_path


def check(text, weights=None):
    with open("net.prototxt", "w") as file:
        file.write(text)
    return lint.check("net.prototxt", weights)


def aborts(text):
    """Whether Caffe itself refuses the net, or its first forward pass."""
    with open("net.prototxt", "w") as file:
        file.write(text)
    return not child.run(lambda: caffe.Net("net.prototxt", caffe.TRAIN).forward() and None).ok


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        ("transform_param { mean_value: 1 mean_value: 2 }", "2 mean_value for images of 3 channel"),
        ("transform_param { crop_size: 6 }", "crop_size is 6, the images are 6x5"),
        (
            'transform_param { mean_value: 1 mean_file: "m" }',
            "has mean_value and mean_file: one of them only",
        ),
        ("transform_param { crop_size: 5 mean_value: 1 }", ""),
        ("transform_param { mean_value: 1 mean_value: 2 mean_value: 3 }", ""),
    ],
)
def test_a_transform_that_does_not_fit_the_images(folder, transform, message):
    text = net(transform)
    found = check(text)
    if message:
        assert [finding.severity for finding in found] == ["error"]
        assert message in found[0].message
    else:
        assert found == []
    assert aborts(text) == bool(message)


def test_encoded_records_are_measured_too(folder):
    Image.new("L", (9, 7)).save("a.png")
    data = (folder / "a.png").read_bytes()
    write_lmdb("db", [("x", datum.encode(data, 0))] * 4, force=True)
    text = net("transform_param { crop_size: 8 }")
    (finding,) = check(text)
    assert "crop_size is 8, the images are 9x7" in finding.message
    assert aborts(text)
    text = net("transform_param { mean_value: 1 mean_value: 2 mean_value: 3 force_color: true }")
    assert check(text) == []
    assert not aborts(text)


@pytest.mark.parametrize(
    ("outputs", "loss", "message"),
    [
        (4, "", ""),
        (3, "", "image 3 of db has label 3, the 3 outputs of layer 'ip' take 0 to 2"),
        (3, "loss_param { ignore_label: 3 }", ""),
    ],
)
def test_labels_beyond_the_outputs_of_a_stock_layer(folder, outputs, loss, message):
    found = check(net(rest=softmax(outputs, loss)))
    assert [finding.message for finding in found] == [message] * bool(message)
    assert all(finding.severity == "error" for finding in found)


@pytest.mark.parametrize(
    ("layer", "source"),
    [
        ('type: "Data" data_param { source: "none" batch_size: 4 backend: LMDB }', "none"),
        ('type: "ImageData" image_data_param { source: "none.txt" batch_size: 4 }', "none.txt"),
        (
            'type: "Python" python_param { module: "caffe_metric.layers" '
            'layer: "IdentityDataLayer" param_str: "{source: \'none\'}" } param { lr_mult: 0 }',
            "none",
        ),
    ],
)
def test_what_is_not_there_is_said_without_build(folder, command, layer, source):
    (finding,) = check(f'layer {{ name: "d" top: "data" top: "label" {layer} }}')
    assert finding.severity == "warning"
    assert finding.message == f"{source} is not there (looked for from {folder})"
    status, out, err = command("lint", "net.prototxt")
    assert (status, err) == (0, "")
    assert f"{source} is not there" in out


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a.png 1\nb.png\t1\n", "list.txt:2: no ' ' before the label"),
        (b"\xef\xbb\xbfa.png 1\n", "begins with a byte order mark"),
        ("a.png\u30001\n".encode(), "list.txt:1: no ' ' before the label"),
        (b"\xff\xff\n", "byte 0xff is no UTF-8"),
        (b"a.png 1\r\nb c.png \t 1\n", ""),
    ],
)
def test_lists_that_caffe_misreads(folder, data, message):
    """It cuts at the last ' ': of `b.png<tab>1` the name is all, and the label 0."""
    (folder / "list.txt").write_bytes(data)
    found = check(
        'layer { name: "d" type: "ImageData" top: "data" top: "label" '
        'image_data_param { source: "list.txt" batch_size: 1 } }'
    )
    assert len(found) == bool(message)
    assert all(finding.severity == "error" and message in finding.message for finding in found)


@pytest.mark.parametrize(
    ("order", "numbers", "batch", "torn"),
    [
        ("pk", {"identities": 3, "images": 2}, 12, False),
        ("pk", {"identities": 3, "images": 2}, 8, True),
        ("pairs", {"images": 2}, 5, True),
        ("pairs", {"images": 2}, 10, False),
        ("random", {}, 7, False),
    ],
)
def test_batches_that_tear_the_groups_of_an_order(folder, order, numbers, batch, torn):
    image = np.zeros((1, 2, 2), np.uint8)
    source = Source(np.arange(60) // 10, ["x"] * 60, {}, lambda row: image)
    convert(source, "db", order, force=True, **numbers)
    found = check(net(batch=batch))
    assert len(found) == torn
    if torn:
        assert found[0].severity == "warning"
        assert f"batch_size {batch} is no multiple of" in found[0].message
    assert (
        check(net(batch=batch).replace('top: "data"', 'include { phase: TEST } top: "data"')) == []
    )


NORM = 'layer { name: "norm" type: "Norm" bottom: "ip" top: "unit" }'


@pytest.mark.parametrize(
    ("rest", "bottom", "warned"),
    [
        ("", "ip", True),
        ("triplet_loss_param { distance: COSINE }", "ip", False),
        (NORM, "unit", False),
        ("triplet_loss_param { distance: L2 }", "ip", True),
    ],
)
def test_a_triplet_loss_without_a_norm(folder, rest, bottom, warned):
    norm, parameters = (rest, "") if rest == NORM else ("", rest)
    text = """
layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 6 dim: 3 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 6 } }
"""
    loss = (
        f'layer {{ name: "loss" type: "TripletLoss" bottom: "{bottom}" top: "loss" {parameters} }}'
    )
    found = check(text + norm + loss)
    assert len(found) == warned
    if warned:
        assert "without a Norm layer between: a margin says little" in found[0].message


def test_which_layers_a_model_fills(folder, command):
    more = 'layer { name: "old" type: "InnerProduct" bottom: "data" top: "old" '
    more += "inner_product_param { num_output: 2 } }"
    (folder / "old.prototxt").write_text(net(rest=softmax(4) + more))
    caffe.Net("old.prototxt", caffe.TRAIN).save("w.caffemodel")
    new = 'layer { name: "embed" type: "InnerProduct" bottom: "ip" top: "e" '
    new += "inner_product_param { num_output: 2 } }"
    (folder / "new.prototxt").write_text(net(rest=softmax(4) + new))
    status, out, err = command("lint", "new.prototxt", "--weights", "w.caffemodel")
    assert (status, err) == (0, "")
    assert "note: w.caffemodel fills: ip" in out
    assert "note: start anew: embed" in out
    assert "note: w.caffemodel also holds, for no layer of the net: old" in out
    assert "nothing to complain about" in out
