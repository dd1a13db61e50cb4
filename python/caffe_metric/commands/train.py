"""`caffe-metric train`: `caffe train` in a child process, watched.

Shows a line with progress, loss, lambda and the fraction of active triplets on a terminal; stops
when a number is not finite; warns when the embeddings collapse to a point; says in one line why
Caffe ended, if it failed. Ctrl-C leaves a snapshot, from which --resume goes on. Paths in the
solver file are relative to the current folder.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path

from caffe_metric.nets import iteration as weights_command
from caffe_metric.support.arguments import positive
from caffe_metric.support.errors import UserError
from caffe_metric.support.progress import Progress
from caffe_metric.training.process import Training
from caffe_metric.training.solver import read_plan
from caffe_metric.training.watch import describe, watch


def add_arguments(parser):
    parser.add_argument("--solver", required=True, metavar="S.prototxt")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--weights", metavar="W.caffemodel", help="start from these weights")
    start.add_argument("--resume", action="store_true", help="go on from the newest snapshot")
    parser.add_argument("--log", metavar="F", help="keep Caffe's log (see `plot`)")
    parser.add_argument("--threads", type=positive, metavar="N", help="BLAS threads")


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
