"""Runs a function in a child process, because a CHECK of Caffe ends the process it fails in.

>>> outcome = child.run(lambda: caffe.Net("net.prototxt", caffe.TRAIN).forward())
>>> outcome.ok or outcome.last_words
'Check failed: ... 3 rows are no multiple of pair_size 2'
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import pickle
import re
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from typing import Any

from caffe_metric.support.errors import UserError


@dataclass(frozen=True)
class Outcome:
    """How a child process ended.

    value: what the function returned (None where it did not).
    error: the exception it raised, as "Type: message", a UserError as its message (None where it
        raised none).
    signal: the signal that ended it (0 where it ended by itself). SIGABRT after a CHECK.
    stderr: all that it wrote there.
    timed_out: it was still running at the time limit.
    """

    value: Any = None
    error: str | None = None
    signal: int = 0
    stderr: str = ""
    timed_out: bool = False

    @property
    def ok(self) -> bool:
        return self.error is None and self.signal == 0 and not self.timed_out

    @property
    def last_words(self) -> str:
        """The message a user should see: a fatal log line, the exception, or the signal's name."""
        if self.timed_out:
            return "still running at the time limit"
        fatal = fatal_message(self.stderr)
        if fatal:
            return fatal
        if self.error:
            return self.error
        return f"ended by {signal.Signals(self.signal).name}" if self.signal else ""


def fatal_message(log: str) -> str:
    """The text of the last fatal line that glog wrote, without its prefix; "" where there is none.

    The text may go on over several lines, up to the stack trace.
    """
    found = re.findall(
        r"^F\d{4,8} \S+ +\d+ [^\]\n]*\] (.*?)(?=^\*\*\* |^ {4}@ |\Z)", log, re.MULTILINE | re.DOTALL
    )
    return found[-1].strip() if found else ""


def run(function, timeout: float | None = None) -> Outcome:
    """Calls `function()` in a forked child and waits; what it returns must be picklable."""
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryFile() as errors:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            _child(function, writer, errors)
        os.close(writer)
        timed_out = False
        try:
            payload, timed_out = _receive(reader, timeout)
        finally:
            os.close(reader)
            if timed_out or sys.exc_info()[0]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
        errors.seek(0)
        stderr = errors.read().decode("utf-8", "replace")
    value, error = pickle.loads(payload) if payload else (None, None)
    code = 0 if timed_out else _exit_code(status)
    if code > 0 and error is None:
        error = f"exit status {code}"
    return Outcome(value, error, max(0, -code), stderr, timed_out)


def _exit_code(status: int) -> int:
    """What os.waitpid gave as an exit status, or minus the signal's number."""
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _child(function, writer: int, errors) -> None:
    """The child's side; never returns."""
    status = 1
    try:
        os.dup2(errors.fileno(), 2)
        # Whatever it was before, e.g. a test's capture. faulthandler keeps the old one, too.
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            answer = (function(), None)
        except BaseException as error:
            traceback.print_exc()
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            answer = (None, f"{kind}{error}")
        sys.stdout.flush()
        with os.fdopen(writer, "wb") as pipe:
            pickle.dump(answer, pipe)
        sys.stderr.flush()
        status = 0
    finally:
        os._exit(status)  # no atexit of the parent's, no second flush of its buffers


def _receive(reader: int, timeout: float | None) -> tuple[bytes, bool]:
    """All bytes until the pipe closes, and whether the time was over before that."""
    deadline = None if timeout is None else time.monotonic() + timeout
    parts = []
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([reader], [], [], left)[0]:
            return b"".join(parts), True
        part = os.read(reader, 1 << 16)
        if not part:
            return b"".join(parts), False
        parts.append(part)
