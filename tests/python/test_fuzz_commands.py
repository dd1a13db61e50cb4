"""Every command, given files and values that are wrong: one line, never a traceback, no file left.

The bad files are what disks, editors and other programs leave: empty, truncated, another format,
bytes without a meaning, a folder, nothing. A list of arguments a command, one `{}` in it for the
bad file; each goes through every kind of file. Values are tried one at a time.
"""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")

from caffe_metric import commands
from PIL import Image

pytestmark = pytest.mark.slow

NET = """
layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
"""


def _npz(path, **arrays):
    with path.open("wb") as file:
        np.savez(file, **arrays)


def bad_files(folder):
    """{name: a path}."""
    good = folder / "good.npz"
    rows = np.arange(12, dtype=np.float32).reshape(6, 2)
    labels = np.arange(6) // 2
    _npz(good, embeddings=rows, labels=labels)
    whole = good.read_bytes()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(folder / "good.png")
    (folder / "pickle.npy").write_bytes(b"\x93NUMPY" + pickle.dumps({"a": 1}))
    np.save(folder / "array.npy", rows)
    np.save(folder / "objects.npy", np.array([None, 1]), allow_pickle=True)
    with zipfile.ZipFile(folder / "other.zip", "w") as file:
        file.writestr("embeddings.npy", "no array")
    contents = {
        "empty": b"",
        "half.npz": whole[: len(whole) // 2],
        "tail.npz": whole[-200:],
        "flipped.npz": whole[:90] + bytes(byte ^ 255 for byte in whole[90:120]) + whole[120:],
        "noise": np.random.default_rng(0).bytes(2000),
        "zeros": bytes(2000),
        "idx": b"\0\0\x08\x03\0\0\0\x02\0\0\0\x02\0\0\0\x02",
        "latin1.txt": "a.png 1\nbär.png 2\n".encode("latin-1"),
        "words.txt": b"one two three\n",
        "braces.prototxt": b"layer { layer { name: ",
        "marked.prototxt": b"\xef\xbb\xbf" + NET.encode(),
        "png.caffemodel": (folder / "good.png").read_bytes(),
        "cut.png": (folder / "good.png").read_bytes()[:60],
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    (folder / "folder").mkdir()
    (folder / "lmdb").mkdir()
    (folder / "lmdb/data.mdb").write_bytes(contents["noise"])
    names = [*contents, "folder", "lmdb", "missing", "pickle.npy", "array.npy", "objects.npy"]
    arrays = {
        "strings.npz": {"embeddings": rows.astype(str), "labels": labels},
        "infinite.npz": {"embeddings": np.full_like(rows, np.inf), "labels": labels},
        "halves.npz": {"embeddings": rows, "labels": labels + 0.5},
        "short.npz": {"embeddings": rows, "labels": labels[:3]},
        "none.npz": {"embeddings": rows[:0], "labels": labels[:0]},
        "flat.npz": {"embeddings": rows[:, :0], "labels": labels},
        "names.npz": {"embeddings": rows, "labels": labels, "names": np.array(["a"])},
        "complex.npz": {"embeddings": rows * 1j, "labels": labels},
    }
    for name, content in arrays.items():
        _npz(folder / name, **content)
    return {name: folder / name for name in [*names, *arrays, "other.zip"]}


CALLS = {
    "lint": ["{}", "good.prototxt --weights {}"],
    "gradcheck": ["{}", "good.prototxt --data {}"],
    "convert": ["{} out", "good.idx out --labels {}"],
    "align": ["{} out"],
    "train": [
        "--solver {}",
        "--solver solver.prototxt --weights {}",
        "--solver solver.prototxt --snapshot {}",
    ],
    "extract": [
        "--net {} --weights good.caffemodel --data list.txt --blob fc -o out.npz",
        "--net good.prototxt --weights {} --data list.txt --blob fc -o out.npz",
        "--net good.prototxt --weights good.caffemodel --data {} --blob fc -o out.npz",
    ],
    "mine": ["{} -o out"],
    "eval": [
        "{} -o out",
        "good.npz --pairs {} -o out",
        "good.npz {} -o out",
        "good.npz --images {} -o out",
    ],
    "weights": ["{} out --net good.prototxt", "good.caffemodel out --net {}"],
    "deploy": [
        "--net {} --weights good.caffemodel -o out",
        "--net good.prototxt --weights {} --blob fc -o out",
    ],
    "modernize": ["{} -o out", "good.prototxt -o out --weights {} out.caffemodel"],
    "plot": ["{} -o out.png"],
    "preset": [
        "softmax --trunk {} --data list.txt -o out",
        "softmax --trunk good.prototxt --data {} -o out",
    ],
    "patch": ["{}"],
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text('net: "good.prototxt" max_iter: 1 base_lr: 0.1')
    import caffe

    caffe.Net("good.prototxt", caffe.TEST).save("good.caffemodel")
    (tmp_path / "good.idx").write_bytes(b"\0\0\x08\x03" + b"\0\0\0\x02" * 3 + bytes(8))
    (tmp_path / "list.txt").write_text("good.png 1\n")
    return tmp_path


def test_every_command_is_here():
    assert set(CALLS) == set(commands.COMMANDS)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.slow
def test_bad_files_are_one_line(folder, command, name):
    bad = bad_files(folder)
    before = {path.name for path in folder.iterdir()}
    for call in CALLS[name]:
        for kind, path in bad.items():
            status, out, err = command(name, *call.replace("{}", str(path)).split())
            about = f"{name} {call} with {kind}: {status} {out!r} {err!r}"
            assert "Traceback" not in out + err, about
            assert "Error:" not in err, about
            if kind == "marked.prototxt" and status == 0:  # Caffe refuses the mark, we need not
                shutil.rmtree("out") if Path("out").is_dir() else Path("out").unlink()
                continue
            assert status == 1, about
            assert err.count("\n") == 1, about
            assert err.startswith(f"caffe-metric {name}: "), about
            left = {path.name for path in folder.iterdir() if path.suffix != ".log"} - before
            assert not left, f"{about} left {left}"


INTEGERS = [
    "convert list.txt out --seed {}",
    "convert list.txt out --include-classes {}",
    "convert list.txt out --size {}",
    "convert list.txt out --order pk --identities {}",
    "mine good.npz -o out --seed {}",
    "mine good.npz -o out --neighbours {}",
    "gradcheck good.prototxt --seed {}",
    "gradcheck good.prototxt --probes {}",
    "weights good.caffemodel out --net good.prototxt --iteration {}",
    "deploy --net good.prototxt --weights good.caffemodel -o out --shape {}",
    "extract --net good.prototxt --weights good.caffemodel --data list.txt --blob fc -o out.npz"
    " --crop {}",
    "train --solver solver.prototxt --threads {}",
]
NUMBERS = [
    "align list.txt out --ec-mc-y {}",
    "mine good.npz -o out --margin {}",
    "gradcheck good.prototxt --tolerance {}",
    "extract --net good.prototxt --weights good.caffemodel --data list.txt --blob fc -o out.npz"
    " --mean {}",
]
NO_NUMBERS = ["nan", "inf", "x", "1e999", "1,,2", "²", "0x10"]
NO_INTEGERS = [*NO_NUMBERS, "-1", "99999999999999999999", "1.5"]
CASES = [(call, NO_INTEGERS) for call in INTEGERS] + [(call, NO_NUMBERS) for call in NUMBERS]


@pytest.mark.parametrize(("call", "values"), CASES, ids=[*INTEGERS, *NUMBERS])
def test_bad_values_are_wrong_usage_or_one_line(folder, capsys, call, values):
    bad_files(folder)
    for value in values:
        name, *arguments = call.split()
        try:
            status = commands.main([name, *(word.replace("{}", value) for word in arguments)])
        except SystemExit as stopped:
            status = stopped.code
        err = capsys.readouterr().err
        assert status in (1, 2), (call, value, err)
        assert value in err, (call, value, err)


def test_labels_that_are_names_are_numbered(folder, command):
    rng = np.random.default_rng(0)
    people = np.array(["王", "Ann", "Bob"]).repeat(4)
    _npz(folder / "f.npz", embeddings=rng.normal(size=(12, 3)), labels=people)
    status, out, err = command("mine", "f.npz", "-o", "t.txt", "--margin", "9", "--list", "l.txt")
    assert (status, err) == (0, "")
    labels = {line.split()[1] for line in (folder / "l.txt").read_text().splitlines()}
    assert labels <= {"0", "1", "2"}
    assert command("eval", "f.npz", "-o", "out")[0] == 0


def test_a_name_that_is_no_utf8_can_be_said(folder, command):
    name = os.fsdecode(b"J\xf6rg.txt")
    for arguments in (["lint", name], ["convert", name, "out"], ["plot", name, "-o", "out.png"]):
        status, _, err = command(*arguments)
        assert (status, err.count("\n")) == (1, 1)
        assert "J\\udcf6rg.txt" in err
