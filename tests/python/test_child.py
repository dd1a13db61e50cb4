"""caffe_metric.support.child: what comes back from a process that may die."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from caffe_metric.support import child


def test_value():
    outcome = child.run(lambda: {"answer": [1, 2.5]})
    assert outcome.ok
    assert outcome.value == {"answer": [1, 2.5]}
    assert outcome.last_words == ""


def test_large_value():
    assert len(child.run(lambda: b"x" * 10_000_000).value) == 10_000_000


def test_exception():
    def fails():
        raise ValueError("margin is -1")

    outcome = child.run(fails)
    assert not outcome.ok
    assert outcome.last_words == "ValueError: margin is -1"


def test_abort_with_a_message():
    def aborts():
        sys.stderr.write("E1122 09:00:00.000000  12 net.cpp:1] before\n")
        sys.stderr.write("F1122 09:00:00.123456  12 x.cpp:7] Check failed: a == b (1 vs. 2) one\n")
        sys.stderr.write("second line\n*** Check failure stack trace: ***\n    @  0x7 frame\n")
        sys.stderr.flush()
        os.abort()

    outcome = child.run(aborts)
    assert outcome.signal == signal.SIGABRT
    assert outcome.last_words == "Check failed: a == b (1 vs. 2) one\nsecond line"


def test_signal_without_a_message():
    outcome = child.run(lambda: os.kill(os.getpid(), signal.SIGSEGV))
    assert outcome.last_words == "ended by SIGSEGV"


def test_exit_is_no_success():
    outcome = child.run(lambda: os._exit(3))
    assert not outcome.ok
    assert outcome.last_words == "exit status 3"


def test_time_limit():
    began = time.monotonic()
    outcome = child.run(lambda: time.sleep(60), timeout=0.3)
    assert outcome.timed_out
    assert not outcome.ok
    assert time.monotonic() - began < 20


def test_many_children_leave_no_files_open():
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        child.run(lambda: None)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
