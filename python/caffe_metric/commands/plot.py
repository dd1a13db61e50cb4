"""`caffe-metric plot`: training curves from a log of `caffe train`."""

from __future__ import annotations

from caffe_metric.support.errors import UserError
from caffe_metric.support.files import replacing
from caffe_metric.training.curves import figure
from caffe_metric.training.log import read_log


def add_arguments(parser):
    parser.add_argument("log", metavar="LOG", help="what `caffe train` wrote to stderr")
    parser.add_argument("-o", dest="out", required=True, metavar="F.png", help="also .svg, .pdf")


def run(args):
    log = read_log(args.log)
    if not log.train and not log.test:
        raise UserError(f"{args.log}: no `Iteration N, loss = X` lines there")
    try:
        with replacing(args.out) as path:
            figure(log).savefig(path, dpi=150)
    except ValueError as error:  # a format that matplotlib does not know
        raise UserError(f"{args.out}: {error}") from error
    return 0
