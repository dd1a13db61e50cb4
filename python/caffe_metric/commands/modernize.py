"""`caffe-metric modernize OLD.prototxt -o NEW.prototxt`: a net of another fork, for this suite.

Reads the metric-learning nets of ten years of forks as they are written, with fields and layers
that Caffe has not, and writes the same net for the layers of this project: the same forward numbers
where the published forward is what its paper says, and the right gradient. Layers that need no
change keep their text. With --weights, a model is carried over, too. Solver files go on unchanged.

The report goes to stdout, a line a change: LINE LAYER: what it was -> what it is (why). Where a
layer cannot be rewritten, it says so, the exit status is 1, and nothing is written; --partial
writes the rest, with such layers as they were.
"""

from __future__ import annotations

import json
from pathlib import Path

from caffe_metric import zoo
from caffe_metric.nets import blobs, netfile, netschema
from caffe_metric.support.errors import UserError
from caffe_metric.support.files import replacing


def add_arguments(parser) -> None:
    parser.add_argument("old", metavar="OLD.prototxt")
    parser.add_argument("-o", dest="out", required=True, metavar="NEW.prototxt")
    parser.add_argument(
        "--weights",
        nargs=2,
        metavar=("OLD.caffemodel", "NEW.caffemodel"),
        help="a model of the old net, and where to write the new net's",
    )
    parser.add_argument("--json", metavar="F", help="writes the report to a file too")
    parser.add_argument(
        "--partial", action="store_true", help="write what can be, leave the rest as it was"
    )


def run(args) -> int:
    text, encoding = netfile.decoded(netfile.read_text(args.old))
    if args.weights:
        _same_kind(*args.weights)
        with blobs.open_model(args.weights[0]) as model:
            done = zoo.modernize(args.old, text, model.arrays())
            _finish(args, done, encoding, model)
    else:
        _finish(args, zoo.modernize(args.old, text), encoding, None)
    return 0


def _same_kind(old: str, new: str) -> None:
    if blobs.is_hdf5(old) != blobs.is_hdf5(new):
        raise UserError(f"{old} and {new}: must both be .h5 files, or neither")


def _finish(args, done, encoding, model) -> None:
    for line in done.report:
        print(line)
    if not netschema.load().complete:
        print(f"{args.old}: note: no pycaffe here, so fields of Caffe's own layers are unchecked")
    if args.json:
        with replacing(args.json) as path:
            rows = [line.as_json() for line in done.report]
            path.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    refused = sum(line.verdict == zoo.REFUSED for line in done.report)
    if refused and not args.partial:
        raise UserError(
            f"{args.old}: {refused} thing(s) cannot be rewritten, see above; nothing is written "
            "(--partial writes the rest)"
        )
    if model is not None:
        model.set_arrays(zoo.converted(done, args.weights[0]))
        model.save(args.weights[1])
    with replacing(args.out) as path:
        Path(path).write_bytes(done.text.encode(encoding))
    changed = sum(line.verdict == zoo.CHANGED for line in done.report)
    left = f", {refused} left as they were" if refused else ""
    written = args.out if not args.weights else f"{args.out}, {args.weights[1]}"
    print(f"{written}: {changed} change(s){left}")
