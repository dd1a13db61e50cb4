"""`caffe-metric deploy`: a net for deployment, of layers that every Caffe has, with its weights.

Data, losses and Dropout go; Norm becomes Reduction, Power and Scale (LRN along the channels of an
image); MarginInnerProduct becomes an InnerProduct. DIR gets deploy.prototxt, deploy.caffemodel,
both in one form that an older Caffe reads, and parity.json: the greatest difference between the
outputs of both nets for the same random images.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from caffe_metric.deployment.deploy import deploy
from caffe_metric.nets import netfile
from caffe_metric.support import child
from caffe_metric.support.arguments import positives
from caffe_metric.support.errors import UserError
from caffe_metric.support.files import replacing


def add_arguments(parser):
    parser.add_argument("--net", required=True, metavar="TRAIN.prototxt")
    parser.add_argument("--weights", required=True, metavar="W.caffemodel")
    parser.add_argument("--blob", metavar="B", help="the output; default: what the loss reads")
    parser.add_argument(
        "--shape",
        type=positives,
        metavar="C,H,W",
        help="of an image; default: as the net's Data layer reads them",
    )
    parser.add_argument("-o", dest="out", required=True, metavar="DIR")


def run(args):
    if not Path(args.weights).exists():
        raise UserError(f"{args.weights}: no such file")
    netfile.quiet_caffe()
    with tempfile.TemporaryDirectory() as folder:
        outcome = child.run(
            lambda: deploy(args.net, args.weights, args.blob, Path(folder), args.shape)
        )
        if not outcome.ok:
            raise UserError(f"{args.net}: {outcome.last_words}")
        parity = outcome.value
        for name in ("deploy.prototxt", "deploy.caffemodel"):
            with replacing(Path(args.out, name)) as path:
                path.write_bytes(Path(folder, name).read_bytes())
    with replacing(Path(args.out, "parity.json")) as path:
        path.write_text(json.dumps(parity, indent=2) + "\n")
    print(
        f"{args.out}: {parity['blob']} of {parity['numbers']} numbers; greatest difference from "
        f"the training net {parity['greatest_difference']:.2g}, of outputs up to "
        f"{parity['largest_output']:.3g}"
    )
    if not parity["equal"]:
        raise UserError(f"{args.out}: the deployed net's outputs differ; see parity.json")
    return 0
