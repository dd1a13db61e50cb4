"""The examples of the checks do what their READMEs say."""

from __future__ import annotations

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
