"""`caffe-metric train`: `caffe train` in a child process, watched.

Shows a line with progress, loss, lambda and the fraction of active triplets on a terminal; stops
when a number is not finite; warns when the embeddings collapse to a point; says in one line why
Caffe ended, if it failed. Ctrl-C leaves a snapshot, from which --resume goes on. Paths in the
solver file are relative to the current folder.
"""

from __future__ import annotations

import contextlib
import math
import sys
import tempfile
import time
from pathlib import Path

from caffe_metric import weights as weights_command
from caffe_metric.errors import UserError
from caffe_metric.progress import Progress
from caffe_metric.training.process import Training
from caffe_metric.training.solver import read_plan

# So many displays in a row near the collapsed loss make a warning.
COLLAPSE_DISPLAYS = 5
COLLAPSE_TOLERANCE = 0.01


def describe(log, plan, seconds=0.0):
    """One line on a TrainingLog: iteration, loss, what the layers report, time left."""
    parts = [f"{log.iteration}/{plan.max_iter}"]
    if (loss := log.last("loss")) is not None:
        parts.append(f"loss {loss:.4g}")
    for top, meaning in plan.reports.items():
        if (value := log.last(top)) is not None:
            parts.append(f"{meaning} {value:.3g}")
    if log.iteration and seconds > 1:
        left = seconds * (plan.max_iter / log.iteration - 1)
        parts.append(f"{max(0, left):.0f} s left")
    return "  ".join(parts)


def collapsed_loss(log, plan):
    """The name of a loss that has stood where equal embeddings put it, or None.

    The loss alone can stand there by chance: every triplet must be active, too, and the distance
    to negatives vanish, where tops tell of these.
    """
    newest = {"active": 1.0, "d_an": 0.0}
    for top, meaning in plan.reports.items():
        newest[meaning] = log.last(top, newest.get(meaning))
    for top, value in plan.collapsed.items():
        if newest["active"] < 1 - COLLAPSE_TOLERANCE or newest["d_an"] > COLLAPSE_TOLERANCE * value:
            continue
        for name in (top, "loss output"):
            _, values = log.train.get(name, ((), ()))
            last = values[-COLLAPSE_DISPLAYS:]
            if len(last) == COLLAPSE_DISPLAYS and all(
                math.isclose(number, value, rel_tol=COLLAPSE_TOLERANCE) for number in last
            ):
                return top
    return None


def watch(training, plan, progress, warn):
    """Follows a Training to its end. Raises UserError if it fails; warns once on collapse."""
    warned = False
    with progress:
        while not training.poll():
            progress.show(describe(training.log, plan, training.seconds))
            if not warned and (top := collapsed_loss(training.log, plan)):
                warned = True
                progress.clear()
                warn(
                    f"iteration {training.log.iteration}: {top} stands at its value for equal "
                    "embeddings: they collapse (a lower base_lr or an easier mining may help)"
                )
            time.sleep(0.1)


def add_arguments(parser):
    parser.add_argument("--solver", required=True, metavar="S.prototxt")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--weights", metavar="W.caffemodel", help="start from these weights")
    start.add_argument("--resume", action="store_true", help="go on from the newest snapshot")
    parser.add_argument("--log", metavar="F", help="keep Caffe's log (see `plot`)")
    parser.add_argument("--threads", type=int, metavar="N", help="BLAS threads")


def run(args):
    plan = read_plan(args.solver)
    snapshot = plan.newest_snapshot() if args.resume else None
    if args.weights and not Path(args.weights).exists():
        raise UserError(f"{args.weights}: no such file")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        weights, snapshot = (_fitted(path, plan, folder) for path in (args.weights, snapshot))
        log_path = args.log or folder / "caffe.log"
        training = stack.enter_context(
            Training(args.solver, log_path, weights, snapshot, args.threads)
        )
        watch(training, plan, Progress(), _warn)
        print(describe(training.log, plan))
        for path in training.log.snapshots[-2:]:
            print(path)
    return 0


def _fitted(path, plan, folder):
    """`path`, or a copy in `folder` with MarginInnerProduct's second blob as the net has it."""
    if not path or not plan.counts or not plan.net or weights_command.fits(path, plan.net):
        return path
    copy = folder / Path(path).name
    for line in weights_command.fit(path, str(copy), plan.net):
        print(line)
    return str(copy)


def _warn(text):
    print(f"caffe-metric train: warning: {text}", file=sys.stderr)
