"""`caffe train` as a child process that is watched, and stopped when its numbers go bad."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from caffe_metric.support.child import fatal_message
from caffe_metric.support.errors import UserError
from caffe_metric.training.log import TrainingLog


def caffe_tool():
    """The path of the `caffe` tool: $CAFFE_TOOL, beside this Python, or in the PATH."""
    beside = Path(sys.executable).parent / "caffe"
    for candidate in (os.environ.get("CAFFE_TOOL"), beside, shutil.which("caffe")):
        if candidate and os.access(candidate, os.X_OK):
            return str(candidate)
    raise UserError("the tool `caffe` is not in the PATH; `./run build` makes it")


class Training:
    """One `caffe train`. Its output goes to a log file, which `poll` reads on.

    threads: BLAS threads of the child; None leaves the environment's choice. Use it as a context
    manager: leaving it ends a child that still runs.
    """

    def __init__(self, solver, log_path, weights=None, snapshot=None, threads=None, folder=None):
        command = [caffe_tool(), "train", f"--solver={solver}"]
        if weights:
            command.append(f"--weights={weights}")
        if snapshot:
            command.append(f"--snapshot={snapshot}")
        # Lines go to stderr only: glog's own files in /tmp are nobody's business.
        environment = {**os.environ, "GLOG_logtostderr": "1", "GLOG_minloglevel": "0"}
        if threads:
            environment["OPENBLAS_NUM_THREADS"] = environment["OMP_NUM_THREADS"] = str(threads)
        self.log, self.log_path = TrainingLog(), Path(log_path)
        self.seconds = 0.0
        self._started = time.monotonic()
        self._partial = ""
        self._writer = self.log_path.open("w")
        self._reader = self.log_path.open(errors="replace")
        try:
            self._child = subprocess.Popen(
                command,
                stdout=self._writer,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
                cwd=folder,
            )
        except OSError as error:
            raise UserError(f"{command[0]}: {error.strerror}") from error

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is KeyboardInterrupt:
            # The terminal has interrupted the child, too: it writes a snapshot and ends.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(10)
        self.stop()
        self._read()
        self._writer.close()
        self._reader.close()

    def stop(self):
        """Asks the child to end (Caffe writes a snapshot on SIGHUP, on SIGTERM none), and waits."""
        if self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(10)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()

    def poll(self):
        """Reads what is new; returns whether the child has ended.

        Raises UserError if it failed, with its last words, or if a number is not finite.
        """
        code = self._child.poll()
        if not self._reader.closed:
            self._read()
        if self.log.bad:
            iteration, name, value = self.log.bad
            self.stop()
            raise UserError(f"iteration {iteration}: {name} is {value}; stopped")
        if code is None:
            self.seconds = time.monotonic() - self._started
        elif code or not self.log.done:
            raise UserError(f"caffe train: {self.last_words(code)}")
        return code is not None

    def _read(self):
        # A line may be written in parts: the last one waits for its end.
        *lines, self._partial = (self._partial + self._reader.read()).split("\n")
        for line in lines:
            self.log.read(line)

    def last_words(self, code):
        """Why the child ended, in one line."""
        text = self.log_path.read_text(errors="replace")
        if words := fatal_message(text):
            return " ".join(words.split())
        if code < 0:
            return f"ended by {signal.Signals(-code).name}"
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        words = lines[-1] if lines else "no output"
        return f"exit status {code}: {words}"
