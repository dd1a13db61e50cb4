"""`caffe-metric weights IN OUT --net NET.prototxt`: makes a model fit a net's MarginInnerProduct.

The layer keeps its iteration count t in a second blob (persist_iteration: true) or does without.
Caffe aborts where a model, or a solver state, and a net differ in that. This adds the blob to each
such layer of IN, or takes it out, as the net asks, and writes OUT; with --iteration T it sets t.

IN is a .caffemodel or a .solverstate (or either with .h5). The model that a solver state belongs to
is converted with it, and written beside OUT. A new blob holds T, or what the net's `iteration`
says, for a solver state plus the iterations done so far.
"""

from __future__ import annotations

from caffe_metric.nets.iteration import fit
from caffe_metric.support.arguments import natural


def add_arguments(parser) -> None:
    parser.add_argument("source", metavar="IN")
    parser.add_argument("target", metavar="OUT")
    parser.add_argument("--net", metavar="NET.prototxt", required=True)
    parser.add_argument("--iteration", metavar="T", type=natural, help="the iteration count to set")


def run(args) -> int:
    for line in fit(args.source, args.target, args.net, args.iteration):
        print(line)
    return 0
