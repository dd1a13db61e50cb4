"""The host-emulated build of Caffe's GPU mode, for the tests that run it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("HOSTCUDA_BUILD", ROOT / "build" / "hostcuda"))


def need_hostcuda():
    """Skips the module where there is no such build."""
    if not (BUILD / "metric_test").is_file() or not (BUILD / "caffe").is_file():
        pytest.skip(
            "Caffe's GPU mode is not built for the host: ./run test", allow_module_level=True
        )


def run(program, *arguments, cwd=None, **environment):
    """Runs a program of the build; the finished process, with its output as text."""
    return subprocess.run(
        [program, *arguments],
        cwd=cwd,
        env={**os.environ, "GLOG_logtostderr": "1", "GLOG_minloglevel": "0", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
