"""`caffe-metric convert`: IDX files, folders and lists to LMDB, and what goes wrong on the way.

The LMDB is read back with the lmdb module and with Caffe's own Datum, where Caffe is there.
"""

from __future__ import annotations

import gzip
import struct

import lmdb
import numpy as np
import pytest
from caffe_metric.data import datum, lmdb_file
from caffe_metric.data.idx import read_idx
from caffe_metric.data.lmdb_file import lmdb_names, read_lmdb, write_lmdb
from caffe_metric.support.errors import UserError
from PIL import Image


def write_idx(path, array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wb") as file:
        file.write(header + array.astype(np.uint8).tobytes())


@pytest.fixture
def idx(tmp_path, rng):
    """23 images of 5 x 3 in four classes, as gzipped IDX files: (path, images, labels)."""
    images = rng.integers(0, 256, (23, 5, 3)).astype(np.uint8)
    labels = np.arange(23) % 4 + 2
    write_idx(tmp_path / "x-images-idx3-ubyte.gz", images)
    write_idx(tmp_path / "x-labels-idx1-ubyte.gz", labels)
    return tmp_path / "x-images-idx3-ubyte.gz", images, labels


@pytest.fixture
def folder(tmp_path, rng):
    """Colour images of two sizes in folders: cat/a.png, cat/b.png, dog/sub/c.png."""
    root = tmp_path / "photos"
    for name, size in (("cat/a.png", (4, 6)), ("cat/b.png", (4, 6)), ("dog/sub/c.png", (8, 6))):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size[::-1], 3)).astype(np.uint8)).save(path)
    return root


def records(path):
    return [(name, *datum.decode(value)) for name, value in read_lmdb(path)]


def test_idx_to_lmdb_and_back(idx, tmp_path, command):
    path, images, labels = idx
    status, out, err = command("convert", path, tmp_path / "out.lmdb")
    assert (status, err) == (0, "")
    assert "23 records of 23 images in 4 classes" in out
    found = records(tmp_path / "out.lmdb")
    assert [label for _, _, label in found] == labels.tolist()
    assert all(np.array_equal(image[0], images[row]) for row, (_, image, _) in enumerate(found))
    assert lmdb_names(tmp_path / "out.lmdb") == [name for name, _, _ in found]
    assert not list(tmp_path.glob(".out*"))


def test_caffe_reads_our_datum_and_we_read_its():
    caffe_pb2 = pytest.importorskip("caffe.proto.caffe_pb2", reason="needs pycaffe")
    image = np.arange(30, dtype=np.uint8).reshape(2, 3, 5)
    theirs = caffe_pb2.Datum.FromString(datum.encode(image, 7))
    assert (theirs.channels, theirs.height, theirs.width, theirs.label) == (2, 3, 5, 7)
    assert theirs.data == image.tobytes()
    assert theirs.SerializeToString() == datum.encode(image, 7)
    floats = caffe_pb2.Datum(channels=1, height=1, width=2, float_data=[0.5, -2], label=3)
    decoded, label = datum.decode(floats.SerializeToString())
    assert decoded.tolist() == [[[0.5, -2]]]
    assert label == 3


def test_readers_are_asked_for_no_more_address_space_than_needed(tmp_path, monkeypatch):
    """The map grows with the records; a system with little room for addresses can open it."""
    monkeypatch.setattr(lmdb_file, "_MAP_SIZE", 1 << 16)
    monkeypatch.setattr(lmdb_file, "_COMMIT_EVERY", 7)
    records = [(f"{k}", bytes([k]) * 50000) for k in range(20)]
    write_lmdb(tmp_path / "whole", iter(records))
    (tmp_path / "resumed").mkdir()
    for part in (records[:11], records[11:]):
        grown = lmdb_file.Resumed(tmp_path / "resumed")
        grown.add([(part, [])])
        grown._env.close()
    for name in ("whole", "resumed"):
        assert list(read_lmdb(tmp_path / name)) == records
        with lmdb.open(str(tmp_path / name), readonly=True, lock=False) as env:
            page = env.stat()["psize"]
        content = (tmp_path / name / "data.mdb").read_bytes()
        for meta in (content[:page], content[page : 2 * page]):
            # After the page's header: magic, version, address, and the size that readers map.
            magic, _, _, size = struct.unpack_from("<IIQQ", meta, 16)
            assert magic == 0xBEEFC0DE
            assert len(content) // 4 < size <= 4 * len(content)


def test_classes_are_chosen_and_relabelled(idx, tmp_path, command):
    path, _, labels = idx
    out = tmp_path / "out.lmdb"
    assert command("convert", path, out, "--exclude-classes", "2,4", "--relabel")[0] == 0
    kept = [label for label in labels if label not in (2, 4)]
    assert [label for *_, label in records(out)] == [{3: 0, 5: 1}[label] for label in kept]
    assert (out / "labels.txt").read_text() == "0 3\n1 5\n"
    arguments = ("--force", "--include-classes", "5", "--limit", "2")
    assert command("convert", path, out, *arguments)[0] == 0
    assert [label for *_, label in records(out)] == [5, 5]


def test_pk_order_with_epochs(idx, tmp_path, command):
    path, _, _ = idx
    out = tmp_path / "out.lmdb"
    arguments = ("--order", "pk", "--identities", "3", "--images", "2", "--epochs", "2")
    assert command("convert", path, out, *arguments)[0] == 0
    labels = np.array([label for *_, label in records(out)]).reshape(-1, 3, 2)
    assert len(labels) == 2 * (23 // 6)
    assert (labels[:, :, 0] == labels[:, :, 1]).all()
    assert all(len(set(batch)) == 3 for batch in labels[:, :, 0])


def test_a_seed_repeats_and_another_does_not(idx, tmp_path, command):
    path, _, _ = idx
    names = []
    for number, seed in enumerate((5, 5, 6)):
        out = tmp_path / f"{number}.lmdb"
        assert command("convert", path, out, "--order", "random", "--seed", seed)[0] == 0
        names.append(lmdb_names(out))
    assert names[0] == names[1] != names[2]


def test_folders_are_resized_and_blue_comes_first(folder, tmp_path, command):
    out = tmp_path / "out.lmdb"
    assert command("convert", folder, out, "--size", "4x6")[0] == 0
    found = records(out)
    assert [(name, label) for name, _, label in found] == [
        ("cat/a.png", 0),
        ("cat/b.png", 0),
        ("dog/sub/c.png", 1),
    ]
    assert all(image.shape == (3, 6, 4) for _, image, _ in found)
    original = np.asarray(Image.open(folder / "cat/a.png"))
    assert np.array_equal(found[0][1], original[:, :, ::-1].transpose(2, 0, 1))
    assert (out / "labels.txt").read_text() == "0 cat\n1 dog\n"


def test_images_of_two_sizes_need_size(folder, tmp_path, command):
    status, _, err = command("convert", folder, tmp_path / "out.lmdb")
    assert status == 1
    assert "dog/sub/c.png: 8x6 with 3 channels, the first image is 4x6" in err
    assert "--size" in err
    assert not list(tmp_path.glob("*out.lmdb*"))


def test_encoded_keeps_the_files_bytes(folder, tmp_path, command):
    out = tmp_path / "out.lmdb"
    assert command("convert", folder, out, "--encoded")[0] == 0
    assert records(out)[2][1] == (folder / "dog/sub/c.png").read_bytes()


def test_a_list_is_relative_to_itself(folder, tmp_path, command):
    listing = folder / "list.txt"
    listing.write_text("# a comment\ndog/sub/c.png 4\n\ncat/a.png 9\n")
    out = tmp_path / "out.lmdb"
    assert command("convert", listing, out, "--size", "4x4", "--gray")[0] == 0
    assert [(name, image.shape, label) for name, image, label in records(out)] == [
        ("dog/sub/c.png", (1, 4, 4), 4),
        ("cat/a.png", (1, 4, 4), 9),
    ]


def test_a_failure_leaves_the_older_lmdb_whole(idx, folder, tmp_path, command):
    path, _, _ = idx
    out = tmp_path / "out.lmdb"
    assert command("convert", path, out)[0] == 0
    status, _, err = command("convert", path, out)
    assert status == 1
    assert "exists already" in err
    assert command("convert", folder, out, "--force")[0] == 1  # two sizes: fails midway
    assert len(records(out)) == 23
    assert not list(tmp_path.glob(".out*"))


def test_force_never_replaces_another_folder(idx, folder, command):
    status, _, err = command("convert", idx[0], folder, "--force")
    assert status == 1
    assert "no LMDB; it is not replaced" in err
    assert (folder / "cat/a.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--exclude-classes", "2,7"), "no image has label 7"),
        (("--exclude-classes", "2,3,4,5"), "no images are left"),
        (("--order", "pk", "--identities", "9"), "9 identities a batch, but there are 4"),
        (("--identities", "9"), "--identities is for --order pk"),
        (("--images", "2", "--order", "random"), "--images is for --order pk"),
        (("--labels", "nowhere"), "nowhere: "),
    ],
)
def test_bad_requests_are_one_line(idx, tmp_path, command, arguments, message):
    status, out, err = command("convert", idx[0], tmp_path / "out.lmdb", *arguments)
    assert (status, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out.lmdb").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "neither|empty"),
        (b"\0\0\x08\x03\0\0", "ends within its header"),
        (b"\0\0\x08\x01\0\0\0\x05abc", "11 bytes, 13 expected"),
        (b"\0\0\x07\x01\0\0\0\x01a", "not an IDX file"),
    ],
)
def test_broken_idx_files(tmp_path, command, data, message):
    import re

    path = tmp_path / "broken-images-idx3-ubyte"
    path.write_bytes(data)
    status, _, err = command("convert", path, tmp_path / "out.lmdb")
    assert status == 1
    assert re.search(message, err)


def test_cut_off_gzip(tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"\0\0\x08\x01" + bytes(100))[:20])
    with pytest.raises(UserError, match=r"a\.gz"):
        read_idx(path)


def test_a_picture_that_is_none(folder, tmp_path, command):
    (folder / "cat/0.png").write_bytes(b"no picture")
    status, _, err = command("convert", folder, tmp_path / "out.lmdb", "--size", "4x6")
    assert (status, err.count("\n")) == (1, 1)
    assert "1 of 4 images could not be read" in err
    assert "cat/0.png: cannot identify image file" in err
    assert lmdb_names(tmp_path / "out.lmdb") == ["cat/a.png", "cat/b.png", "dog/sub/c.png"]
    left_out = (tmp_path / "out.lmdb/left_out.txt").read_text()
    assert left_out == "cat/0.png\tcannot identify image file\n"
    status, _, err = command("convert", folder, tmp_path / "two.lmdb", "--strict")
    assert status == 1
    assert "cat/0.png: cannot identify" in err
    assert not list(tmp_path.glob("*two.lmdb*"))


def test_wrong_label_in_a_list_names_the_line(tmp_path, command):
    (tmp_path / "list.txt").write_text("a.png 1\nb.png one\n")
    status, _, err = command("convert", tmp_path / "list.txt", tmp_path / "out.lmdb")
    assert status == 1
    assert "list.txt:2: 'FILE LABEL' expected, not 'b.png one'" in err
