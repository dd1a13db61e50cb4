"""One reader for all lists: what editors write is read, what cannot be read is named with its line.

Each kind of list is written in each spelling (byte order mark, tabs, line ends of Windows and of
old Macs, full-width blanks, UTF-16), and must give what the plain spelling gives.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from caffe_metric.data.alignment import read_list
from caffe_metric.data.lists import (
    check_labels,
    join_names,
    labelled_lines,
    read_labelled,
    split_names,
)
from caffe_metric.evaluation.metrics.pairs import read_pairs
from caffe_metric.lint.sources import _image_list
from caffe_metric.support.errors import UserError
from PIL import Image

SPELLINGS = {
    "plain": lambda text: text.encode(),
    "mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "tabs": lambda text: text.replace(" ", "\t").encode(),
    "windows": lambda text: text.replace("\n", "\r\n").encode(),
    "mac": lambda text: text.replace("\n", "\r").encode(),
    "full width": lambda text: text.replace(" ", "\u3000").encode(),
    "utf-16": lambda text: text.encode("utf-16"),
    "blank lines": lambda text: ("\n  \n" + text.replace("\n", " \n\n")).encode(),
    "comments": lambda text: ("# by hand\n" + text).encode(),
}


@pytest.fixture(params=SPELLINGS)
def spelled(request, tmp_path):
    def write(text):
        path = tmp_path / "list.txt"
        path.write_bytes(SPELLINGS[request.param](text))
        return path

    return write


def test_files_with_labels(spelled):
    path = spelled("ann/1.png 3\n王/b.png 14\n")
    names, labels = read_labelled(path)
    assert names == ["ann/1.png", "王/b.png"]
    assert labels.tolist() == _image_list(str(path)) == [3, 14]


def test_landmarks(spelled):
    numbers = " ".join(map(str, range(1, 11)))
    ((name, label, landmarks),) = read_list(spelled(f"a.png 7 {numbers}\n"))
    assert (name, label) == ("a.png", 7)
    ((name, label, _),) = read_list(spelled(f"b.png {numbers}\n"))
    assert (name, label) == ("b.png", None)
    assert landmarks.tolist() == [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]]


def test_pairs(spelled):
    names = ["Ann_0001", "Ann_0004", "Bob_0002"]
    left, right, same, _ = read_pairs(spelled("2 1\n" + "Ann 1 4\nAnn 1 Bob 2\n" * 2), names)
    assert (left.tolist(), right.tolist()) == ([0] * 4, [1, 2] * 2)
    assert same.tolist() == [True, False] * 2
    plain = "Ann_0001 Ann_0004 1\n" * 5 + "Ann_0004 Bob_0002 0\n" * 5
    left, right, same, _ = read_pairs(spelled(plain), names)
    assert (left.tolist(), right.tolist()) == ([0] * 5 + [1] * 5, [1] * 5 + [2] * 5)


def test_names_may_hold_blanks(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("Ann Lee/my photo.png 3\n")
    assert read_labelled(path)[0] == ["Ann Lee/my photo.png"]
    numbers = " ".join("1234567890")
    for label, expected in [("3", 3), ("", None)]:
        path.write_text(f"Ann Lee/1.png {label} {numbers}\n")
        assert read_list(path)[0][:2] == ("Ann Lee/1.png", expected)
    path.write_text("a b.png\tc d.png\t1\n" * 10)
    assert read_pairs(path, ["c d.png", "a b.png"])[0].tolist() == [1] * 10


@pytest.mark.parametrize("names", [["a", "b"], ["a b", "c"], ["a\u3000b", "c"], ["", "c"]])
def test_names_side_by_side_come_apart_again(names):
    assert split_names(join_names(names)) == names


@pytest.mark.parametrize("name", ["a\tb", "a\nb"])
def test_a_name_that_a_list_cannot_hold(name):
    with pytest.raises(UserError, match="a list cannot hold"):
        join_names([name])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a.png 1\nb\xe4r.png 2\n", "list.txt:2: byte 0xe4 is no UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "list.txt: not a text file"),
        (b"a\0b 1\n", "list.txt: not a text file"),
        (b"", "list.txt: empty"),
        (b"# nothing\n \n", "list.txt: empty"),
        (b"a.png\n", "list.txt:1: 'FILE LABEL' expected, not 'a.png'"),
        (b"a.png 1\n\nb.png -1\n", "list.txt:3: 'FILE LABEL' expected"),
        (b"a.png " + b"9" * 19, "list.txt:1: label 9999999999999999999 is too large"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, data, message):
    path = tmp_path / "list.txt"
    path.write_bytes(data)
    with pytest.raises(UserError) as raised:
        read_labelled(path)
    assert message in str(raised.value)


def test_labels_that_a_float_cannot_hold(tmp_path):
    check_labels([0, 2**24 - 1])
    for label, message in [
        (2**24, "b: label 16777216, but Caffe's 32-bit labels are exact below 16777216 only"),
        (-1, "b: label -1, but labels are integers >= 0"),
    ]:
        with pytest.raises(UserError) as raised:
            check_labels([0, label], ["a", "b"])
        assert message in str(raised.value)


def test_convert_refuses_them_and_numbers_anew(tmp_path, command):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "list.txt").write_text(f"a.png {2**32}\na.png {2**24}\n")
    status, _, err = command("convert", tmp_path / "list.txt", tmp_path / "out.lmdb")
    assert (status, err.count("\n")) == (1, 1)
    assert "a.png: label 4294967296, but Caffe's 32-bit labels are exact below 16777216" in err
    assert not (tmp_path / "out.lmdb").exists()
    more = ("--relabel",)
    assert command("convert", tmp_path / "list.txt", tmp_path / "out.lmdb", *more)[0] == 0


def test_names_that_are_no_utf8_go_through(tmp_path, command):
    folder = os.fsencode(tmp_path) + b"/faces/J\xf6rg"
    os.makedirs(folder)
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", folder + b"/\xfcber.png")
    out = tmp_path / "out.lmdb"
    status, _, err = command("convert", tmp_path / "faces", out)
    assert (status, err) == (0, "")
    assert (out / "labels.txt").read_bytes() == b"0 J\xf6rg\n"
    from caffe_metric.data.lmdb_file import lmdb_names

    assert [os.fsencode(name) for name in lmdb_names(out)] == [b"J\xf6rg/\xfcber.png"]


def test_lines_for_caffe_hold_one_blank():
    assert labelled_lines(["a b.png"], np.array([3])) == "a b.png 3\n"
