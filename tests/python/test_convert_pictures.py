"""`caffe-metric convert` on what people's folders hold: gray, turned, deep and broken pictures.

OpenCV, by which Caffe reads pictures, is the oracle. A conversion is killed at each of its commits,
called again, and must give the records of one that was not.
"""

from __future__ import annotations

import json
import os
import time

import numpy as np
import pytest
from caffe_metric.data import conversion, datum, lmdb_file
from caffe_metric.data.conversion import convert, keep_classes
from caffe_metric.data.lmdb_file import read_lmdb
from caffe_metric.data.picture import Picture
from caffe_metric.data.sources import Source, open_source
from caffe_metric.support import child
from PIL import Image

ORIENTATION = 0x112


def records(path):
    return [(name, *datum.decode(bytes(value))) for name, value in read_lmdb(path)]


def colours(rng, height=6, width=4):
    return rng.integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.fixture
def odd_pictures(tmp_path, rng):
    """One picture of each kind, all of 4 x 6 as they are shown."""
    folder = tmp_path / "people/ann"
    folder.mkdir(parents=True)
    pixels = colours(rng)
    image = Image.fromarray(pixels)
    image.save(folder / "colour.png")
    image.convert("L").save(folder / "gray.png")
    image.convert("1").save(folder / "bits.png")
    image.convert("P").save(folder / "palette.png")
    image.convert("LA").save(folder / "gray_alpha.png")
    transparent = image.convert("RGBA")
    transparent.putalpha(Image.fromarray(pixels[:, :, 0]))
    transparent.save(folder / "alpha.png")
    image.save(folder / "colour.bmp")
    image.save(folder / "lossy.jpg", quality=95, subsampling=0)
    for turn in range(2, 9):
        exif = Image.Exif()
        exif[ORIENTATION] = turn
        stored = image if turn < 5 else image.transpose(Image.Transpose.ROTATE_90)
        stored.save(folder / f"turned{turn}.jpg", exif=exif, quality=95, subsampling=0)
    deep = rng.integers(0, 65536, (6, 4)).astype(np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    Image.fromarray(deep).save(folder / "deep.tif")
    cv2 = pytest.importorskip("cv2", reason="pip install opencv-python-headless")
    cv2.imwrite(str(folder / "deep_colour.png"), np.stack([deep, deep // 2, deep // 3], axis=2))
    return tmp_path / "people"


def as_opencv(path, gray=False):
    import cv2

    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR)
    return image[None] if gray else image.transpose(2, 0, 1)


def test_pictures_are_what_opencv_reads(odd_pictures, tmp_path, command):
    out = tmp_path / "out.lmdb"
    status, said, err = command("convert", odd_pictures, out)
    assert (status, err) == (0, "")
    assert "size      4x6, 3 channel(s)" in said
    found = records(out)
    assert len(found) == 18
    for name, image, _ in found:
        np.testing.assert_array_equal(image, as_opencv(odd_pictures / name), err_msg=name)
    assert command("convert", odd_pictures, out, "--gray", "--force")[0] == 0
    for name, image, _ in records(out):
        # Their weights of red, green and blue are rounded in other ways.
        oracle = as_opencv(odd_pictures / name, gray=True).astype(int)
        assert np.abs(image.astype(int) - oracle).max() <= 1, name


def test_encoded_records_decode_to_the_same(odd_pictures, tmp_path, command):
    """Caffe's Data layer decodes with IMREAD_UNCHANGED: no turn, all bits, gray as gray."""
    import cv2

    out = tmp_path / "out.lmdb"
    assert command("convert", odd_pictures, out, "--encoded")[0] == 0
    for name, data, _ in records(out):
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert decoded.dtype == np.uint8
        expected = as_opencv(odd_pictures / name)
        np.testing.assert_array_equal(decoded.transpose(2, 0, 1), expected, err_msg=name)
    kept = {name: data for name, data, _ in records(out)}
    for name in ("ann/colour.png", "ann/lossy.jpg", "ann/colour.bmp"):
        assert kept[name] == (odd_pictures / name).read_bytes()


@pytest.mark.parametrize("encoded", [False, True])
def test_a_truncated_jpeg_is_left_out(tmp_path, command, rng, encoded):
    (tmp_path / "people/ann").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg"):
        Image.fromarray(colours(rng, 60, 40)).save(tmp_path / "people/ann" / name)
    whole = (tmp_path / "people/ann/a.jpg").read_bytes()
    (tmp_path / "people/ann/a.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    out = tmp_path / "out.lmdb"
    status, _, err = command("convert", tmp_path / "people", out, *["--encoded"] * encoded)
    assert (status, err.count("\n")) == (1, 1)
    assert "ann/a.jpg: image file is truncated" in err
    assert [name for name, *_ in records(out)] == ["ann/b.jpg"]


@pytest.fixture
def people(tmp_path, rng):
    """Six people of 1 to 6 pictures, named by both; every second picture of c and f is broken."""
    for number, name in enumerate("abcdef", 1):
        (tmp_path / "people" / name).mkdir(parents=True)
        for k in range(number):
            path = tmp_path / "people" / name / f"{name}{k}.png"
            Image.fromarray(colours(rng)).save(path)
            if name in "cf" and k % 2:
                path.write_bytes(path.read_bytes()[:50])
    return tmp_path / "people"


def test_people_with_one_picture_are_named_and_labels_stay_dense(people, tmp_path, command):
    out = tmp_path / "out.lmdb"
    status, said, err = command("convert", people, out, "--order", "pairs")
    assert status == 1  # of the broken pictures
    assert "left out  1 people with fewer images than a group: a" in said
    assert (out / "labels.txt").read_text() == "0 b\n1 c\n2 d\n3 e\n4 f\n"
    assert {label for *_, label in records(out)} == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    "order", [("pairs",), ("pk", "--identities", "3", "--images", "3", "--epochs", "5")]
)
def test_a_broken_picture_breaks_no_group(people, tmp_path, command, order):
    out = tmp_path / "out.lmdb"
    status, _, err = command("convert", people, out, "--order", *order)
    assert (status, err.count("\n")) == (1, 1)
    assert "4 of 2" in err
    group = 2 if order[0] == "pairs" else 3
    names = np.array([name for name, *_ in records(out)]).reshape(-1, group)
    labels = np.array([label for *_, label in records(out)]).reshape(-1, group)
    assert (labels == labels[:, :1]).all()
    if order[0] == "pairs":
        assert (names[:, 0] != names[:, 1]).all()
    else:
        batches = labels[:, 0].reshape(-1, 3)
        assert all(len(set(batch)) == 3 for batch in batches.tolist())
    broken = {f"c/c{k}.png" for k in (1,)} | {f"f/f{k}.png" for k in (1, 3, 5)}
    assert not broken & set(names.ravel())
    listed = {line.split("\t")[0] for line in (out / "left_out.txt").read_text().splitlines()}
    assert listed == broken


def test_a_folder_without_pictures_takes_no_label(tmp_path, command):
    for name in ("ann", "empty", "zoe"):
        (tmp_path / "people" / name).mkdir(parents=True)
    for name in ("ann", "zoe"):
        Image.new("L", (4, 4)).save(tmp_path / "people" / name / "1.png")
    assert command("convert", tmp_path / "people", tmp_path / "out.lmdb")[0] == 0
    assert (tmp_path / "out.lmdb/labels.txt").read_text() == "0 ann\n1 zoe\n"


def test_the_files_of_a_list_are_relative_to_root(tmp_path, command):
    (tmp_path / "photos").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "photos/a.png")
    (tmp_path / "lists").mkdir()
    absolute = tmp_path / "photos/a.png"
    (tmp_path / "lists/list.txt").write_text(f"a.png 3\n{absolute} 4\n")
    out = tmp_path / "out.lmdb"
    root = ("--root", tmp_path / "photos")
    assert command("convert", tmp_path / "lists/list.txt", out, *root)[0] == 0
    assert [(name, label) for name, _, label in records(out)] == [
        ("a.png", 3),
        (str(absolute), 4),
    ]


def test_the_summary_says_what_is_there(people, tmp_path, command):
    out = tmp_path / "out.lmdb"
    arguments = ("--order", "pk", "--identities", "2", "--images", "3", "--seed", "5")
    _, said, _ = command("convert", people, out, *arguments)
    assert said.splitlines() == [
        f"{out}: 18 records of 21 images in 6 classes",
        "  size      4x6, 3 channel(s)",
        "  order     pk, 3 of a person side by side, in batches of 6; 1 epoch(s)",
        "  left out  2 image(s) that could not be read",
    ]
    found = json.loads((out / conversion.SUMMARY).read_text())
    assert (found["records"], found["images"], found["people"]) == (18, 21, 6)
    assert (found["group"], found["batch"], found["seed"]) == (3, 6, 5)
    lines = (out / "left_out.txt").read_text().splitlines()
    assert found["left_out"] == len(lines) > 0
    assert (found["channels"], found["height"], found["width"]) == (3, 6, 4)


def killed_at(place, source, out, monkeypatch):
    """A conversion that commits often, in a process that dies at the `place`-th step."""
    count = 0

    def dying(function):
        def call(*arguments, **options):
            nonlocal count
            count += 1
            if count == place:
                os.kill(os.getpid(), 9)
            return function(*arguments, **options)

        return call

    def run():
        lmdb_file._put = dying(lmdb_file._put)
        lmdb_file.Resumed.add = dying(lmdb_file.Resumed.add)
        lmdb_file.Resumed.close = dying(lmdb_file.Resumed.close)
        conversion._describe = dying(conversion._describe)
        convert(open_source(source), out, "pk", epochs=3, identities=2, images=3)

    return child.run(run)


def test_a_killed_conversion_goes_on(people, tmp_path, monkeypatch):
    monkeypatch.setattr(lmdb_file, "_COMMIT_EVERY", 7)
    whole = tmp_path / "whole.lmdb"
    summary = convert(open_source(people), whole, "pk", epochs=3, identities=2, images=3)
    assert len(summary.left_out) == 4
    loaded = []
    read = Picture.read
    monkeypatch.setattr(Picture, "read", lambda *both: loaded.append(both[1]) or read(*both))
    for place in (1, 2, 9, 10, 20, 40, 60, 200):
        out = tmp_path / f"{place}.lmdb"
        outcome = killed_at(place, people, out, monkeypatch)
        if outcome.ok:
            break
        assert outcome.signal == 9
        assert not out.exists()
        loaded.clear()
        again = convert(open_source(people), out, "pk", epochs=3, identities=2, images=3)
        assert [r[0] for r in records(out)] == [r[0] for r in records(whole)]
        assert all((a[1] == b[1]).all() for a, b in zip(records(out), records(whole)))
        assert sorted(again.left_out) == sorted(summary.left_out)
        assert (again.resumed > 0) == (place > 20) or place in (9, 10, 20)
        assert sorted(path.name for path in out.iterdir()) == sorted(
            path.name for path in whole.iterdir()
        )
        assert not list(tmp_path.glob(".*"))
        if place == 40:
            assert len(loaded) < 40  # what was committed was not read again
    assert outcome.ok


def test_another_request_starts_anew(people, tmp_path, monkeypatch):
    monkeypatch.setattr(lmdb_file, "_COMMIT_EVERY", 7)
    out = tmp_path / "out.lmdb"
    assert killed_at(30, people, out, monkeypatch).signal == 9
    assert list(tmp_path.glob(".out.lmdb-partial"))
    convert(open_source(people), out, "random", seed=3)
    convert(open_source(people), tmp_path / "other.lmdb", "random", seed=3)
    assert [r[0] for r in records(out)] == [r[0] for r in records(tmp_path / "other.lmdb")]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("order", ["random", "pairs", "pk"])
@pytest.mark.slow
def test_many_identities_take_no_quadratic_time(order):
    """A second or two: each pair of identities would take an hour."""
    labels = np.arange(100_000).repeat(2)
    image = np.zeros((1, 1, 1), np.uint8)
    names = ["x"] * len(labels)
    source = Source(labels, names, {}, lambda row: image)
    start = time.monotonic()
    kept = keep_classes(source, limit=2, exclude=[7], relabel=True)
    rng = np.random.default_rng(0)
    sizes = {"pk": {"identities": 8, "images": 2}}.get(order, {})
    rows = np.concatenate(list(conversion.ORDERS[order](kept.labels, rng, **sizes)))
    assert len(rows) >= len(labels) - 16
    conversion._fingerprint(kept, rows)
    conversion._with_partners(kept, 2, conversion.Summary())
    assert time.monotonic() - start < 30
