"""The child of `caffe-metric train`: runs the solver, and tells the parent what happens.

    python -m caffe_metric.training.worker JOB PIPE

Caffe ends the process where a check fails, so that it gets one of its own. The parent reads its
stderr, which is Caffe's log, and the pipe with its events.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from caffe_metric.support.errors import UserError
from caffe_metric.training.job import Events, Job


def main(arguments) -> int:
    job, events = Job.loads(arguments[0]), Events(int(arguments[1]))
    _end_with(int(arguments[2]))
    asked = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup's wish
            signal.signal(number, lambda received, frame: asked.append(received))
    sys.excepthook = printed = Printed()
    sys.path[:0] = [os.getcwd(), os.path.dirname(os.path.abspath(job.solver))]
    try:
        if job.ranks > 1:
            from caffe_metric.parallel.loop import train

            train(job, events, asked)
        else:
            from caffe_metric.training.loop import Loop

            Loop(job, events, asked).run()
    except UserError as error:
        events(error=str(error))
        return 1
    except Exception as error:
        events(error=printed.words or words_of(error))
        return 1
    return 0


class Printed:
    """Keeps the words of an exception that Caffe prints, and then loses."""

    words = ""

    def __call__(self, kind, error, traceback):
        sys.__excepthook__(kind, error, traceback)
        self.words = words_of(error)


def words_of(error) -> str:
    """An exception in one line; our layers' ValueErrors say all by themselves."""
    text = " ".join(str(error).split())
    if isinstance(error, ValueError) and "Layer" in text.partition(":")[0]:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _end_with(parent: int) -> None:
    """A parent that is killed takes this process along: nobody else would end it."""
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    except (AttributeError, OSError):
        return  # no Linux
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stderr.flush()
    # Caffe's threads and Boost's objects have ended processes in their destructors.
    os._exit(status)
