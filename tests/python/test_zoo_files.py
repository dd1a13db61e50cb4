"""`caffe-metric modernize`: files as people keep them, the report, lists of images."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from caffe_metric.nets import prototxt, upgrade
from oracle import forks
from test_zoo_margins import MODEL, chain
from zoo_case import TRUNK, Case

import caffe

V1 = """name: "old"
layers { name: "data" type: HDF5_DATA top: "data" top: "label"
  hdf5_data_param { source: "images.txt" batch_size: 12 } }
layers {
  name: "fc5" type: INNER_PRODUCT bottom: "data" top: "fc5"
  blobs_lr: 1 blobs_lr: 2 weight_decay: 1 weight_decay: 0
  inner_product_param { num_output: 6 weight_filler { type: "xavier" } }
}
layers { name: "n" type: NORMALIZE bottom: "fc5" top: "n" }
layers { name: "triplet" type: TRIPLET_LOSS bottom: "n" top: "triplet"
  triplet_loss_param { margin: 0.4 num_triplets: 1 } }
layers { name: "quiet" type: SILENCE bottom: "label" include: { phase: TRAIN } }
"""


def test_a_net_of_2014(tmp_path, capsys):
    case = Case(tmp_path, V1)
    assert case.modernize() == 0
    out = capsys.readouterr().out
    assert "1 -: an old net (`layers`) -> `layer` (as Caffe upgrades it)" in out
    assert "9 n: Normalize -> Norm" in out
    assert "param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 }" in case.text()
    found = case.blobs(caffe.TRAIN)
    np.testing.assert_allclose(
        found["triplet"], forks.triplet_groups(found["n"], 1, 0.4), rtol=1e-4
    )
    case.train()


def test_both_kinds_of_layers_and_nets_of_2013_are_refused(tmp_path, capsys):
    assert Case(tmp_path, V1 + 'layer { name: "x" type: "ReLU" }').modernize() == 1
    assert "13: has both" in capsys.readouterr().err
    assert Case(tmp_path, 'layers { layer { name: "x" type: "relu" } }').modernize() == 1
    assert "2013" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["utf-8-sig", "gb18030", "latin-1", "utf-8"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_encodings_and_line_ends(encoding, ends, tmp_path):
    comment = {"gb18030": "余弦损失", "latin-1": "légère", "utf-8": "余弦 é"}.get(encoding, "é")
    text = f"# {comment}\n" + chain()
    case = Case(tmp_path, text)
    (tmp_path / "old.prototxt").write_bytes(text.replace("\n", ends).encode(encoding))
    assert case.modernize() == 0
    data = (tmp_path / "new.prototxt").read_bytes()
    assert data.startswith(f"# {comment}{ends}".encode(encoding.replace("-sig", "")))
    assert data.count(b"\n") == data.count(ends.encode())
    case.blobs()


def test_the_report_as_json(tmp_path, capsys):
    case = Case(tmp_path, chain())
    assert case.modernize("--json", tmp_path / "report.json") == 0
    rows = json.loads((tmp_path / "report.json").read_text())
    printed = capsys.readouterr().out.splitlines()
    assert len(rows) == len(printed) - 1
    for row, line in zip(rows, printed):
        assert line.startswith(f"{row['line']} {row['layer']}: {row['was']} -> {row['now']}")
        assert row["verdict"] in ("changed", "stays", "refused")


def test_a_solver_is_no_net(tmp_path, capsys):
    case = Case(tmp_path, 'net: "a.prototxt"\nbase_lr: 0.1\n')
    assert case.modernize() == 1
    assert "solver" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text, line",
    [
        ('layer { name: "x"\n type: }', 2),
        ("layer {\n", 2),
        ('layer { name: "x" type: "ReLU" }\n}', 2),
        ('layer { name: "x" type: "Scale"\n scale_param { axis: "one" } }', 2),
    ],
)
def test_faults_of_writing_have_a_line(text, line, tmp_path, capsys):
    case = Case(tmp_path, text)
    assert case.modernize() == 1
    assert f"old.prototxt:{line}:" in capsys.readouterr().err


def test_a_path_with_blanks_in_place(tmp_path):
    folder = tmp_path / "сети и 网络"
    folder.mkdir()
    case = Case(folder, chain(), MODEL)
    old = (folder / "old.prototxt").read_text()
    (folder / "new.prototxt").write_text(old)
    assert case.modernize() == 0
    assert case.text() != old
    case.train()


IMAGES = (
    """
layer { name: "data" type: "ImageData" top: "data" top: "label"
  image_data_param { source: "list.txt" batch_size: 12 new_height: 7 new_width: 8 %s }
  transform_param { mirror: true crop_size: 6 scale: 0.0078125 mean_value: 127.5 } }
"""
    + TRUNK.partition("batch_size: 12 } }")[2]
    + """
layer { name: "n" type: "Norm" bottom: "fc5" top: "n" }
layer { name: "rank" type: "RankHardLoss" bottom: "n" bottom: "label" top: "rank"
  rank_param { neg_num: 2 pair_size: 2 hard_ratio: 0.5 rand_ratio: 0.5 margin: 0.5 } }
"""
)


def pictures(folder, count=24):
    """A list of images whose rows stand in pairs of one label."""
    from PIL import Image

    rng = np.random.default_rng(0)
    lines = []
    for number in range(count):
        name = f"{number}.png"
        Image.fromarray(rng.integers(0, 255, (7, 8, 3), np.uint8)).save(folder / name)
        lines.append(f"{name} {number // 2 * 7 % 12}\n")
    (folder / "list.txt").write_text("".join(lines))
    return [int(line.split()[1]) for line in lines]


@pytest.mark.parametrize("shuffle", [False, True])
def test_pairs_of_a_list_stay_pairs(shuffle, tmp_path):
    labels = pictures(tmp_path)
    case = Case(tmp_path, IMAGES % f"pair_size: 2 shuffle: {str(shuffle).lower()}")
    assert case.modernize() == 0
    found = case.blobs(caffe.TRAIN)["label"].astype(int)
    assert (found[::2] == found[1::2]).all()
    if not shuffle:
        assert found.tolist() == labels[:12]
    else:
        assert found.tolist() != labels[:12]
    case.train()


def test_identities_of_a_list(tmp_path):
    pictures(tmp_path)
    text = (IMAGES % "label_num: 6 img_num: 2").replace("batch_size: 12", "batch_size: 12")
    case = Case(tmp_path, text)
    assert case.modernize() == 0
    found = case.blobs(caffe.TRAIN)["label"].astype(int)
    assert (found[::2] == found[1::2]).all() and len(set(found)) == 6


def test_pairs_with_a_private_transformation(tmp_path, capsys):
    text = (IMAGES % "pair_size: 2").replace("mirror: true", "mirror: true max_color_shift: 9")
    assert Case(tmp_path, text).modernize() == 1
    assert "changes the images at random" in capsys.readouterr().out
    text = text.replace("max_color_shift: 9", "max_color_shift: 0")
    assert Case(tmp_path, text).modernize() == 0


def test_a_batch_of_broken_pairs(tmp_path, capsys):
    case = Case(tmp_path, (IMAGES % "pair_size: 5"))
    assert case.modernize() == 1
    assert "no multiple of pair_size 5" in capsys.readouterr().out


def test_upgrade_moves_the_transformation():
    text = """layers < type: DATA name: "d" top: "data"
  data_param { source: "a" scale: 0.5 mean_file: "m" crop_size: 3 mirror: true batch_size: 2 } >"""
    new = upgrade.upgraded(text)
    assert new.count("\n") == text.count("\n")
    layer = prototxt.parse(new)[0]
    assert layer.text("type") == "Data"
    assert [entry.name for entry in layer.all("data_param", "source")] == ["source"]
    names = [field.name for field in next(layer.all("transform_param")).fields]
    assert names == ["scale", "mean_file", "crop_size", "mirror"]


COMMANDS = {
    "lint": ["old.prototxt"],
    "gradcheck": ["old.prototxt"],
    "train": ["--solver", "solver.prototxt"],
    "deploy": ["--net", "old.prototxt", "--weights", "old.caffemodel", "-o", "out"],
    "extract": [
        "--net", "old.prototxt", "--weights", "old.caffemodel", "--data", "list.txt",
        "--blob", "fc5", "-o", "f.npz",
    ],
    "weights": ["old.caffemodel", "new.caffemodel", "--net", "old.prototxt"],
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_other_commands_point_here_in_one_line(name, tmp_path, monkeypatch, command):
    Case(tmp_path, chain(), MODEL)
    pictures(tmp_path, 4)
    solver = (tmp_path / "solver.prototxt").read_text()
    (tmp_path / "solver.prototxt").write_text(solver.replace("new.prototxt", "old.prototxt"))
    monkeypatch.chdir(tmp_path)
    status, _, err = command(name, *COMMANDS[name])
    assert status == 1
    assert err.count("\n") == 1
    assert "old.prototxt:11: layer 'norm1': type Normalize of another fork of Caffe" in err
    assert "`caffe-metric modernize old.prototxt -o NEW` reads it" in err


WITHOUT_CAFFE = """
import sys
sys.modules["caffe"] = None
from caffe_metric import commands
sys.exit(commands.main(["modernize", "old.prototxt", "-o", "without.prototxt"]))
"""


@pytest.mark.parametrize(
    "text",
    [
        chain(),
        chain(margin="CombinedMargin", scale=64),
        V1,
        IMAGES % "pair_size: 2",
        TRUNK
        + """layer { name: "bn" type: "BN" bottom: "conv1" top: "conv1" }
layer { name: "l" type: "LRN" bottom: "conv1" top: "l" lrn_param { local_size: 3 } }""",
    ],
)
def test_without_any_caffe(text, tmp_path):
    """The same net, in a process that cannot import caffe."""
    case = Case(tmp_path, text)
    assert case.modernize() == 0
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_CAFFE], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "no pycaffe here" in done.stdout
    assert (tmp_path / "without.prototxt").read_text() == case.text()
