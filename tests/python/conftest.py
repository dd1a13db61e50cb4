"""Before anything imports caffe: a quiet log. Fixtures that several files share."""

from __future__ import annotations

import os
import signal

os.environ.setdefault("GLOG_minloglevel", "2")

import numpy as np
import pytest

# A runner in the background may have left these ignored, and children inherit that.
for _number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(
            _number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL
        )


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
