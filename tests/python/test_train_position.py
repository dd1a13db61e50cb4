"""Where data goes on after a resumption: IdentityData by its blob, Caffe's own by reading past.

The batches of one training are compared with those of another that was stopped in the middle.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")

import h5py
from caffe_metric.data import datum
from caffe_metric.data.identity import batches
from caffe_metric.data.identity.source import open_images
from caffe_metric.data.lmdb_file import write_lmdb
from caffe_metric.nets import blobs, netfile
from caffe_metric.training import position
from caffe_metric.training.process import Training
from harness import build, need
from PIL import Image
from training_nets import FC, NORM, SOFTMAX, TRIPLET, write

pytestmark = pytest.mark.slow

PARAM = "param { lr_mult: 0 decay_mult: 0 }"
IDENTITY = """
layer {{ name: "data" type: "Python" top: "data" top: "label"
  param {{ lr_mult: 0 decay_mult: 0 }}
  python_param {{ module: "caffe_metric.layers" layer: "IdentityDataLayer"
    param_str: "{{source: data.lmdb, identities: 3, scale: 0.01, mirror: true, {0}}}" }} }}
"""
BLOBLESS = IDENTITY.format("layout: SHUFFLED, batch_size: 10, persist_iteration: false").replace(
    PARAM, ""
)
DATA = """
layer { name: "data" type: "Data" top: "data" top: "label" transform_param { scale: 0.01 }
  data_param { source: "data.lmdb" batch_size: 10 backend: LMDB } }
"""
LIST = """
layer { name: "data" type: "ImageData" top: "data" top: "label" transform_param { scale: 0.01 }
  image_data_param { source: "list.txt" batch_size: 10 is_color: false } }
"""
HDF5 = """
layer { name: "data" type: "HDF5Data" top: "data" top: "label"
  hdf5_data_param { source: "h5.txt" batch_size: 10 } }
"""


def drawing(reader, also=""):
    """The reader with random crops and mirrors."""
    reader = reader.replace("scale: 0.01", "scale: 0.01 mirror: true crop_size: 4")
    return reader.replace("batch_size: 10", f"batch_size: 10 {also}")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    need("cpp")
    write(tmp_path)
    source = open_images("data.lmdb")
    for row in range(64):
        Image.fromarray(source.load(row)[0]).save(f"{row}.png")
    lines = [f"{row}.png {source.labels[row]}\n" for row in range(64)]
    (tmp_path / "list.txt").write_text("".join(lines))
    with h5py.File("rows.h5", "w") as file:
        file["rows"] = np.stack([source.load(row) for row in range(64)]) / np.float32(100)
        file["rows_label"] = np.float32(source.labels)
    (tmp_path / "h5.txt").write_text("rows.h5\n")
    return tmp_path


def finish(**how):
    notes = []
    with Training("solver.prototxt", **how) as training:
        while not training.poll():
            time.sleep(0.01)
        return notes + training.notes


CROPS = "goes on at record 16 of 64, with its crops and mirrors; reads past 400 images for it"
# What reads, and what the log says of it.
READERS = {
    "data": (DATA, "(Data) goes on at record 16 of 64"),
    "list": (LIST, "(ImageData) goes on at its line"),
    "rows": (HDF5, "(HDF5Data) goes on where it was; reads past 400 images for it"),
    "crops": (drawing(DATA), f"(Data) {CROPS}"),
    "drawn": (
        drawing(LIST),
        "(ImageData) goes on at its line, crops and mirrors; reads past 400 images for it",
    ),
    "mixed": (
        drawing(LIST, "shuffle: true rand_skip: 7"),
        "(ImageData) goes on where it was; reads past 400 images for it",
    ),
    "faces": (BLOBLESS, ""),
}


def of_all_readers():
    """A net that sees the images of all of them side by side, and the labels of the first."""
    parts = []
    for name, (reader, _) in READERS.items():
        label = "label" if name == "data" else f"{name}_label"
        reader = reader.replace('"data"', f'"{name}"').replace('"label"', f'"{label}"')
        flat = (
            f'layer {{ name: "{name}_flat" type: "Flatten" bottom: "{name}" top: "{name}_flat" }}'
        )
        parts.append(f"{reader}{flat}\n")
        if label != "label":
            parts.append(f'layer {{ name: "{label}" type: "Silence" bottom: "{label}" }}\n')
    rows = " ".join(f'bottom: "{name}_flat"' for name in READERS)
    concat = f'layer {{ name: "concat" type: "Concat" {rows} top: "concat" }}\n'
    return "".join([*parts, concat, FC.replace('bottom: "data"', 'bottom: "concat"')])


def test_readers_go_on_where_they_were(folder):
    """64 records in batches of 10, twice an iteration: 20 iterations end at record 16.

    That is in the seventh epoch: what is cropped, mirrored and shuffled then is compared, too.
    """
    net = of_all_readers() + NORM + TRIPLET
    write(folder, net, max_iter=30, snapshot=20, snapshot_prefix='"whole"', iter_size=2)
    finish()
    write(folder, net, max_iter=20, snapshot_prefix='"parts"', iter_size=2)
    finish()
    write(folder, net, max_iter=30, snapshot_prefix='"parts"', iter_size=2)
    notes = [note for note in finish(resume=True) if note.startswith("layer")]
    assert notes == [f"layer '{name}' {text}" for name, (_, text) in READERS.items() if text]
    assert weights("whole_iter_30.caffemodel") == weights("parts_iter_30.caffemodel")
    assert weights("whole_iter_30.caffemodel") != weights("whole_iter_20.caffemodel")


def weights(path):
    with blobs.open_model(path) as model:
        (layer,) = (one for one in model.content.layer if one.name == "fc")
        return [np.array(blob.data).tolist() for blob in layer.blobs]


@pytest.mark.parametrize(
    ("reader", "text"),
    [
        (drawing(DATA), "goes on at record 16 of 64; what it crops and mirrors is drawn anew"),
        (drawing(LIST), "goes on at its line; what it crops and mirrors is drawn anew"),
        (drawing(LIST, "shuffle: true"), "cannot be set: it starts at its beginning again, in an"),
        (HDF5.replace("batch_size", "shuffle: true batch_size"), "cannot be set: it starts at"),
        (DATA, "goes on at record 16 of 64"),
    ],
)
def test_what_takes_too_long_is_said(folder, reader, text, monkeypatch):
    (folder / "net.prototxt").write_text(reader)
    layers = netfile.read("net.prototxt").layer
    monkeypatch.setattr(position, "MOST_FILES", 399)
    monkeypatch.setattr(position, "MOST_RECORDS", 399)
    (place,) = position.places(layers, 40)
    assert text in place.text
    assert place.batches == (8 if reader in (DATA, drawing(DATA)) else 0)
    source = layers[0].image_data_param.source
    position.rotate_lists(layers, 40, str(folder))
    rotated = "goes on at its line" in text
    assert (layers[0].image_data_param.source != source) is rotated


def caffe_train(*arguments):
    """Runs the tool itself; returns its log."""
    tool = os.path.join(sys.prefix, "bin", "caffe")
    if not os.path.exists(tool):
        pytest.skip("no caffe tool here: ./run build")
    command = [tool, "train", "-solver", "solver.prototxt", *arguments]
    told = {**os.environ, "GLOG_minloglevel": "0", "GLOG_logtostderr": "1"}
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, env=told)
    assert run.returncode == 0, run.stderr
    return run.stderr


@pytest.mark.parametrize("param", ["param { lr_mult: 0 decay_mult: 0 }", ""])
def test_identity_data_goes_on_under_caffe_train(folder, param):
    """The tool itself brings the number of the batch back, with its snapshot.

    Our losses bear it that the labels' gradient is asked for, too.
    """
    net = IDENTITY.format("seed: 5").replace(PARAM, param) + FC + NORM + TRIPLET
    for prefix, last, more in (("whole", 30, ()), ("parts", 20, ()), ("parts", 30, ("parts",))):
        write(folder, net, max_iter=last, snapshot=0, snapshot_prefix=f'"{prefix}"')
        caffe_train(*[f"-snapshot={name}_iter_20.solverstate" for name in more])
    assert weights("whole_iter_30.caffemodel") == weights("parts_iter_30.caffemodel")
    with blobs.open_model("parts_iter_30.caffemodel") as model:
        assert model.value("data", 0) == 30


# The labels come to the losses in two halves.
SLICED = """
layer { name: "out" type: "InnerProduct" bottom: "fc" top: "out"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "cut" type: "Slice" bottom: "label" top: "a" top: "b" slice_param { axis: 0 } }
layer { name: "cut_out" type: "Slice" bottom: "out" top: "c" top: "d" slice_param { axis: 0 } }
layer { name: "one" type: "SoftmaxWithLoss" bottom: "c" bottom: "a" top: "one" }
layer { name: "two" type: "SoftmaxWithLoss" bottom: "d" bottom: "b" top: "two" }
"""


@pytest.mark.parametrize("head", [SOFTMAX, SLICED], ids=["softmax", "sliced"])
def test_a_stock_loss_is_not_asked_for_the_gradient_of_labels(folder, head):
    """Caffe aborts at that: without a param there is no blob under the tool, which its log says."""
    bare = IDENTITY.format("seed: 5").replace(PARAM, "")
    write(folder, bare + FC + head, max_iter=20, snapshot=0)
    assert "has no param { lr_mult: 0 decay_mult: 0 }" in caffe_train()
    with blobs.open_model("small_iter_20.caffemodel") as model:
        assert model.shapes()["data"] == []
    caffe_train("-weights", "small_iter_20.caffemodel")
    write(folder, IDENTITY.format("seed: 5") + FC + head, max_iter=20, snapshot=0)
    assert "has no param" not in caffe_train()
    with blobs.open_model("small_iter_20.caffemodel") as model:
        assert model.value("data", 0) == 20
    # `caffe-metric train` gives the layer its param, and goes on from a model without the blob.
    write(folder, bare + FC + head, max_iter=20)
    finish(resume=False)
    with blobs.open_model("small_iter_20.caffemodel") as model:
        assert model.value("data", 0) == 20


def test_models_of_either_reader_fill_the_other(folder, command):
    """IdentityData and Data of one name: one has a blob, the other none."""
    readers = {"a": DATA, "b": IDENTITY.format("seed: 5")}
    for one, other in ("ab", "ba", "bb"):
        write(folder, readers[one] + FC + SOFTMAX, max_iter=2, snapshot_prefix=f'"{one}"')
        finish()
        write(folder, readers[other] + FC + SOFTMAX, max_iter=1, snapshot_prefix='"last"')
        lines = finish(weights=[f"{one}_iter_2.caffemodel"])
        assert f"{one}_iter_2.caffemodel: fills 'fc', 'out'" in lines
    with blobs.open_model("last_iter_1.caffemodel") as model:
        assert model.value("data", 0) == 1  # the data starts anew


def test_a_state_without_the_blob_is_gone_on_from(folder):
    """As `caffe train` leaves it of a net whose reader has no param."""
    bare = IDENTITY.format("seed: 5").replace(PARAM, "") + FC + SOFTMAX
    write(folder, bare, max_iter=20, snapshot=0)
    caffe_train()
    write(folder, bare, max_iter=40, snapshot=30)
    finish(state="small_iter_20.solverstate")
    once = weights("small_iter_40.caffemodel")
    os.remove("small_iter_40.json")
    finish(resume=True)
    assert weights("small_iter_40.caffemodel") == once != weights("small_iter_30.caffemodel")


def test_a_test_layer_of_the_same_name_has_no_blob(folder, command):
    """Caffe would abort: lint says so, and train goes on without the blob."""
    test = DATA.replace('top: "label"', 'top: "label" include { phase: TEST }')
    train = IDENTITY.format("seed: 5").replace("param {", "include { phase: TRAIN } param {", 1)
    write(folder, train + test + FC + NORM + TRIPLET, test_iter=1, test_interval=20)
    status, out, _ = command("lint", "net.prototxt")
    assert (status, "layer 'data': keeps the number of its batch in a blob" in out) == (1, True)
    finish()
    with blobs.open_model("small_iter_60.caffemodel") as model:
        assert model.shapes()["data"] == []
    write(folder, train.replace(PARAM, "") + test + FC + NORM + TRIPLET, max_iter=20)
    assert "has no param" in caffe_train()  # nothing asks for the blob there: it is left out
    write(folder, train.replace(PARAM, "") + FC + NORM + TRIPLET)
    status, out, _ = command("lint", "net.prototxt")
    assert "needs param { lr_mult: 0 decay_mult: 0 }" in out


def test_any_batch_is_had_at_once(folder):
    text = IDENTITY.format("seed: 5, workers: {0}, iteration: {1}")
    text = text.replace("{0}", "%d").replace("{1}", "%d")
    read = {}
    for workers, first in ((0, 0), (2, 7), (1, 1_000_000), (3, 1_000_000)):
        made = build(text % (workers, first))
        for number in range(first, first + 9):
            made.forward()
            found = made.blobs["data"].data.copy(), made.blobs["label"].data.copy()
            if number in read:
                assert all(np.array_equal(a, b) for a, b in zip(found, read[number])), number
            read[number] = found
        assert made.params["data"][0].data[0] == first + 9
    assert len(read) == 25


@pytest.mark.parametrize("layout", ["pk", "pairs", "triplets", "thirds", "shuffled"])
def test_a_batch_does_not_depend_on_what_was_asked_before(layout):
    labels = np.repeat(np.arange(11), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
    sizes = (4, 3) if layout == "pk" else (12,)
    make = getattr(batches, layout)
    forwards, backwards = make(labels, 3, *sizes), make(labels, 3, *sizes)
    there = [forwards(number) for number in range(40)]
    back = [backwards(number) for number in reversed(range(40))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(there, back))
    assert not np.array_equal(there[0], make(labels, 4, *sizes)(0))


def test_identities_and_their_images_come_round_in_turns():
    """11 identities in batches of 4: each at least once in three batches, with other images."""
    labels = np.repeat(np.arange(11), 6)
    order = batches.pk(labels, 3, 4, 2)
    for turn in range(5):
        seen = labels[np.concatenate([order(3 * turn + place) for place in range(3)])]
        assert set(seen) == set(range(11))
        assert np.bincount(seen).max() <= 4
    # Three rounds show all six images of an identity; what fills a round comes on top.
    rows = np.concatenate([order(number) for number in range(9)])
    assert len(set(rows.tolist())) == 66


def test_labels_are_read_without_their_images():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (3, 4, 5)).astype(np.uint8)
    for label in (0, 1, 127, 128, 16383, 16384, 2**24 - 1):
        for value in (datum.encode(image, label), datum.encode(b"\x89PNG" * 99, label)):
            assert datum.label(memoryview(value)) == label
    floats = datum.datum_class()(channels=2, height=1, width=1, float_data=[1, 2], label=7)
    assert datum.label(memoryview(floats.SerializeToString())) == 7
    floats = datum.datum_class()(channels=2, height=1, width=1, float_data=[1, 2])
    assert datum.label(memoryview(floats.SerializeToString())) == 0
    negative = datum.datum_class()(label=-3).SerializeToString()
    assert datum.label(memoryview(negative)) == -3


def test_many_records_are_opened_in_time(tmp_path):
    """A million in under 5 s on an idle machine; here 100,000, with room for a busy one."""
    write_lmdb(tmp_path / "m.lmdb", (("", datum.encode(np.zeros((1, 2, 2), np.uint8), k // 9))
                                     for k in range(100_000)))  # fmt: skip
    began = time.process_time()
    source = open_images(tmp_path / "m.lmdb")
    assert time.process_time() - began < 2
    assert np.array_equal(source.labels, np.arange(100_000) // 9)
    assert source.load(99_999).shape == (1, 2, 2)
