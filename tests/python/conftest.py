"""Before anything imports caffe: a quiet log. Fixtures that several files share."""

from __future__ import annotations

import os

os.environ.setdefault("GLOG_minloglevel", "2")

import numpy as np
import pytest


@pytest.fixture
def rng():
    return np.random.default_rng(20150606)


@pytest.fixture
def command(capsys):
    """Runs `caffe-metric` in this process: command("lint", path) -> (status, stdout, stderr)."""
    from caffe_metric import commands

    def run(*arguments):
        status = commands.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run
