"""`caffe-metric weights IN OUT --net NET.prototxt`: makes a model fit a net.

MarginInnerProduct and MarginSoftmaxLoss keep their iteration count t in a blob (persist_iteration:
true) or do without; with own_update there are two more, the momentum and the rate. Caffe aborts
where a model, or a solver state, and a net differ in that. This adds the blobs to each such layer
of IN, or takes them out, as the net asks, and writes OUT; with --iteration T it sets t.

IN is a .caffemodel or a .solverstate (or either with .h5). The model that a solver state belongs to
is converted with it, and written beside OUT. A new count is T, or what the net's `iteration` says,
for a solver state plus the iterations done so far; a new momentum is 0, a new rate update_rate.

--batch-norm DATA (an LMDB, list or folder) measures the averages of the model's BatchNorm layers
anew instead: their plain mean over --batches batches, with the weights as they are.
"""

from __future__ import annotations

from caffe_metric.nets.iteration import fit
from caffe_metric.support.arguments import natural, positive
from caffe_metric.support.errors import UserError
from caffe_metric.training.statistics import BATCHES, measure


def add_arguments(parser) -> None:
    parser.add_argument("source", metavar="IN")
    parser.add_argument("target", metavar="OUT")
    parser.add_argument("--net", metavar="NET.prototxt", required=True)
    parser.add_argument("--batch-norm", metavar="DATA", help="measure BatchNorm's averages on it")
    parser.add_argument("--batches", metavar="N", type=positive, default=BATCHES, help="(200)")
    parser.add_argument("--iteration", metavar="T", type=natural, help="the iteration count to set")


def run(args) -> int:
    if args.batch_norm:
        if args.iteration is not None:
            raise UserError("--iteration and --batch-norm: one of them at a time")
        lines = measure(args.source, args.target, args.net, args.batch_norm, args.batches)
    else:
        lines = fit(args.source, args.target, args.net, args.iteration)
    for line in lines:
        print(line)
    return 0
