"""`caffe-metric train`: a training that survives what happens to it.

Runs the solver in a child process. Shows a line with progress, loss, lambda, the fraction of active
triplets and the time left on a terminal; stops when a number is not finite, and says in which layer
it arose; warns when the embeddings collapse to a point, when the net guesses, and when a softmax
overflows. Ctrl-C, SIGTERM and SIGHUP leave a snapshot. --resume goes on from the newest snapshot
that is whole, and ends with the same model, bit for bit, as a training that was never stopped.
Paths in the solver file are relative to the current folder. --preset writes net and solver as the
command `preset` does, and trains by them, stage after stage.

`mpirun -n R caffe-metric train ...` trains with R processes, on one machine or many: see
docs/mpi.md.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

from caffe_metric.parallel.speaking import one_voice
from caffe_metric.parallel.world import find
from caffe_metric.support.arguments import natural, positive
from caffe_metric.support.errors import UserError
from caffe_metric.support.progress import Progress
from caffe_metric.training import preset_options
from caffe_metric.training.presets import PRESETS
from caffe_metric.training.process import Terminated, Training, terminable
from caffe_metric.training.watch import describe, watch


def add_arguments(parser):
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--solver", metavar="S.prototxt")
    what.add_argument("--preset", metavar="NAME", choices=sorted(PRESETS), help="see `preset`")
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
    parser.add_argument(
        "--timeout",
        type=positive,
        default=600,
        metavar="S",
        help="under mpirun: seconds that a rank waits for another, then the training ends (600)",
    )
    preset_options.add_options(parser.add_argument_group("with --preset"), required=False)


def run(args):
    world = find()
    with one_voice(world):
        return _run(args, world)


def _run(args, world):
    if not args.preset:
        if args.trunk or args.folder:
            raise UserError("--trunk and -o go with --preset, not with --solver")
        return _train(args, args.solver, world)
    if not args.trunk or not args.folder:
        raise UserError("--preset needs --trunk NET.prototxt and -o DIR")
    if args.resume or args.snapshot:
        raise UserError(f"--preset begins anew: go on by --solver {args.folder}/solver.prototxt")
    if world.size > 1:
        raise UserError("--preset writes files: `caffe-metric preset` first, mpirun with --solver")
    for solver in preset_options.write_files(args.preset, args):
        _train(args, str(solver), world)
        args.weights = None  # a further stage starts from the model of the one before
    return 0


def _train(args, solver, world):
    weights = [path.strip() for path in (args.weights or "").split(",") if path.strip()]
    evaluate = None
    if args.eval_every:
        try:
            evaluate = positive(args.eval_every[0]), args.eval_every[1]
        except argparse.ArgumentTypeError as error:
            raise UserError(f"--eval-every: {error}") from error
    for path in filter(None, [args.triplets, evaluate and evaluate[1]]):
        if not Path(path).exists() and not world.rank:
            raise UserError(f"{path}: no such file")
    training = Training(
        solver,
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
        world=world,
        timeout=args.timeout,
    )
    # Rank 0 speaks for all.
    tell, warn = (_nothing, _nothing) if world.rank else (print, _warn)
    progress = Progress(io.StringIO()) if world.rank else Progress()
    try:
        with terminable(), training:
            watch(training, progress, tell, warn)
    except (KeyboardInterrupt, Terminated) as error:
        if world.rank:
            return 1
        _print_snapshot(training)
        if isinstance(error, KeyboardInterrupt):
            raise
        raise UserError(f"ended by {error}") from None
    if not world.rank:
        print(describe(training.status))
        _print_snapshot(training)
    return 0


def _nothing(text):
    """What the other ranks say."""


def _print_snapshot(training):
    for path in training.snapshot[:2]:
        print(path)


def _warn(text):
    print(f"caffe-metric train: warning: {text}", file=sys.stderr)
