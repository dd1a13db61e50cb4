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


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """A run over folders takes all cores where pytest-xdist is installed; `-n 0` takes one.

    One worker more than cores: some tests wait for processes. Tests are dealt out singly.
    """
    options = config.option
    is_worker = hasattr(config, "workerinput")
    over_folders = not any(".py" in argument for argument in config.args)
    if getattr(options, "numprocesses", 0) is None and over_folders and not is_worker:
        options.numprocesses = os.cpu_count() + 1
        options.dist = "worksteal"


def pytest_collection_modifyitems(items):
    """The longest first: what begins last must not keep one worker alone."""

    def late(item):
        slow = item.get_closest_marker("slow")
        return 2 if slow is None else not slow.kwargs.get("first", False)

    items.sort(key=late)


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    """A machine that loses power is not what most tests are about, and flushing takes seconds."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


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
