"""`caffe-metric train`: a training that survives what happens to it.

Runs the solver in a child process. Shows a line with progress, loss, lambda, the fraction of active
triplets and the time left on a terminal; stops when a number is not finite, and says in which layer
it arose; warns when the embeddings collapse to a point, when the net guesses, and when a softmax
overflows. Ctrl-C, SIGTERM and SIGHUP leave a snapshot. --resume goes on from the newest snapshot
that is whole, and ends with the same model, bit for bit, as a training that was never stopped.
Paths in the solver file are relative to the current folder.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from caffe_metric.support.arguments import natural, positive
from caffe_metric.support.errors import UserError
from caffe_metric.support.progress import Progress
from caffe_metric.training.process import Terminated, Training, terminable
from caffe_metric.training.watch import describe, watch


def add_arguments(parser):
    parser.add_argument("--solver", required=True, metavar="S.prototxt")
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--weights", metavar="W[,W2...]", help="start from these models; other layers start anew"
    )
    start.add_argument("--resume", action="store_true", help="go on from the newest snapshot")
    start.add_argument(
        "--snapshot", metavar="F.solverstate", help="go on from this one, as `caffe train` left it"
    )
    parser.add_argument("--seed", type=natural, metavar="N", help="of all draws (else random_seed)")
    parser.add_argument("--log", metavar="F", help="appended to (else PREFIX.log; see `plot`)")
    parser.add_argument("--threads", type=positive, metavar="N", help="BLAS threads")
    parser.add_argument("--triplets", metavar="T.npy", help="of `mine`: what to draw batches from")
    parser.add_argument(
        "--mine-every", type=positive, metavar="N", help="mine triplets anew every N iterations"
    )
    parser.add_argument(
        "--eval-every",
        nargs=2,
        metavar=("N", "F"),
        help="every N iterations the AUC of the held-out images F; the best model is kept",
    )
    parser.add_argument("--gpu", type=natural, metavar="N", help="the GPU to use")


def run(args):
    weights = [path.strip() for path in (args.weights or "").split(",") if path.strip()]
    evaluate = None
    if args.eval_every:
        try:
            evaluate = positive(args.eval_every[0]), args.eval_every[1]
        except argparse.ArgumentTypeError as error:
            raise UserError(f"--eval-every: {error}") from error
    for path in filter(None, [args.triplets, evaluate and evaluate[1]]):
        if not Path(path).exists():
            raise UserError(f"{path}: no such file")
    training = Training(
        args.solver,
        args.log,
        weights,
        state=args.snapshot,
        threads=args.threads,
        resume=args.resume,
        seed=args.seed,
        gpu=args.gpu,
        triplets=args.triplets,
        mine_every=args.mine_every or 0,
        evaluate=evaluate,
    )
    try:
        with terminable(), training:
            watch(training, Progress(), print, _warn)
    except (KeyboardInterrupt, Terminated) as error:
        _print_snapshot(training)
        if isinstance(error, KeyboardInterrupt):
            raise
        raise UserError(f"ended by {error}") from None
    print(describe(training.status))
    _print_snapshot(training)
    return 0


def _print_snapshot(training):
    for path in training.snapshot[:2]:
        print(path)


def _warn(text):
    print(f"caffe-metric train: warning: {text}", file=sys.stderr)
