"""The examples of the checks do what their READMEs say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from caffe_metric.support import paths
from harness import need

EXAMPLES = paths.tree() / "examples"
pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="an installed package has none")


def test_the_wrong_gradient_is_found(command):
    need("cpp")
    status, out, err = command("gradcheck", EXAMPLES / "05_wrong_gradient" / "net.prototxt")
    assert status == 1
    assert "1 of 7 gradients wrong" in err
    verdicts = {line.split()[0]: " FAIL " in line for line in out.splitlines()[1:]}
    assert verdicts == {"embedding": False, "forgetful": True, "right": False, "loss": False}


def test_caffe_time_shows_every_layer():
    need("cpp")
    tool = Path(sys.prefix) / "bin" / "caffe"
    if not tool.is_file():
        pytest.skip("the caffe tool is not in this environment: ./run build")
    net = EXAMPLES / "06_caffe_time" / "net.prototxt"
    done = subprocess.run(
        [tool, "time", "-model", net, "-iterations", "1"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "GLOG_minloglevel": "0", "GLOG_logtostderr": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for layer in ("norm", "triplet_loss", "rank_hard_loss", "margin_inner_product"):
        for direction in ("forward", "backward"):
            found = re.search(rf"{layer}\s+{direction}: ([\d.e+-]+) ms", done.stderr)
            assert found, f"no {direction} time of {layer}"
            assert float(found.group(1)) > 0


def test_readmes_name_files_that_exist():
    for readme in EXAMPLES.glob("*/README.md"):
        for path in re.findall(r"examples/[\w./]+\w", readme.read_text(encoding="utf-8")):
            assert (EXAMPLES.parent / path).exists(), f"{readme}: {path}"


def run_example(name, *arguments):
    path = EXAMPLES / "08_python" / name
    done = subprocess.run(
        [sys.executable, path, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_loss_and_a_report_in_python():
    before, after = re.findall(r" (0\.\d{4})", run_example("loss.py"))
    assert float(after) < float(before)
    pytest.importorskip("sklearn")
    auc = re.search(r"AUC +(0\.\d+)", run_example("evaluate.py"))
    assert float(auc.group(1)) == pytest.approx(0.87, abs=0.01)


@pytest.mark.slow
def test_nets_in_python(tmp_path):
    need("cpp")
    assert "triplet_loss_param {\n    margin: 0.2" in run_example("netspec.py")
    found = run_example("gradcheck.py", EXAMPLES / "05_wrong_gradient" / "net.prototxt")
    assert re.search(r"forgetful .* FAIL ", found)
    net = tmp_path / "net.prototxt"
    net.write_text(
        'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 } } }\n'
        'layer { name: "unit" type: "Norm" bottom: "data" top: "unit" }\n'
    )
    model = tmp_path / "net.caffemodel"
    model.write_bytes(b"")
    assert run_example("embed.py", net, model).strip() == "(10, 3)"


@pytest.mark.slow
def test_the_notebook_runs():
    """Its code cells, one after another, as a kernel runs them."""
    pytest.importorskip("sklearn")
    cells = json.loads((EXAMPLES / "08_python" / "digits.ipynb").read_text(encoding="utf-8"))
    names = {}
    for number, cell in enumerate(cells["cells"]):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    before, after = (names[report]["verification"]["auc"] for report in ("before", "after"))
    assert before == pytest.approx(0.872, abs=0.005)
    assert after > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("rate", ["0.25", "1"])
def test_a_million_at_small_size(tmp_path, rate):
    """Two thousand identities: those that no step has met are told apart all the same."""
    need("cpp", "MarginSoftmaxLoss")
    script = EXAMPLES / "09_million" / "train.py"
    arguments = ["--identities", "2000", "--rate", rate, "--steps", "60", "--folder", tmp_path]
    done = subprocess.run(
        [sys.executable, script, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    head, _, *rows, last = done.stdout.splitlines()
    assert head == f"2000 identities, sample_rate {rate}"
    table = [[float(word) for word in row.split()] for row in rows]
    assert [row[0] for row in table] == list(range(0, 61, 12))
    assert table[-1][1] < table[1][1]  # the loss
    assert table[0][3] < 0.3 < 0.9 < table[-1][3]  # pairs of unseen identities, verified
    assert re.fullmatch(r"\d+ ms a step, peak memory 0\.\d\d GiB", last)
