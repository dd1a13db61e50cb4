"""The examples of the checks do what their READMEs say."""

from __future__ import annotations

import json
import os
import re
import shutil
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


def run_notebook(path):
    """Runs its code cells, one after another, as a kernel does; returns their names."""
    cells = json.loads((EXAMPLES / path).read_text(encoding="utf-8"))["cells"]
    names = {}
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            exec(compile("".join(cell["source"]), f"{path}, cell {number}", "exec"), names)
    return names


@pytest.fixture
def pyplot(monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    monkeypatch.setitem(matplotlib.rcParams, "animation.html", "none")
    matplotlib.use("agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


@pytest.mark.slow
def test_the_notebook_runs():
    pytest.importorskip("sklearn")
    names = run_notebook("08_python/digits.ipynb")
    before, after = (names[report]["verification"]["auc"] for report in ("before", "after"))
    assert before == pytest.approx(0.872, abs=0.005)
    assert after > 0.95


@pytest.mark.slow
def test_the_notebook_of_the_plane_runs(pyplot):
    names = run_notebook("12_notebooks/plane.ipynb")
    begun = names["cm"].evaluate(names["points"], names["labels"])["verification"]["auc"]
    assert set(names["auc"]) == set(names["losses"])
    for name, (path, values) in names["paths"].items():
        assert names["auc"][name] > begun + 0.1
        assert path.shape == (121, 24, 2)
        assert values[-1] < values[0]
    player = names["animation"]._repr_html_()
    assert player.count("data:image/png;base64") == 31


@pytest.mark.slow
def test_the_notebook_of_a_trained_net_runs(pyplot, capfd):
    need("cpp")
    pytest.importorskip("sklearn")
    names = run_notebook("12_notebooks/net.ipynb")
    assert names["filters"].shape[1:] == (1, 5, 5)
    assert names["embeddings"].shape == (500, 64)
    assert names["seen_report"]["verification"]["auc"] > 0.9
    assert names["unseen_report"]["verification"]["auc"] > 0.6
    assert names["right"] > 0.8
    assert "fills 'conv1'" in capfd.readouterr().out
    shutil.rmtree(names["work"])
