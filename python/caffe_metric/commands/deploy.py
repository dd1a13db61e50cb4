"""`caffe-metric deploy`: a net for deployment, of layers that every Caffe has, with its weights.

Data, losses, labels and Dropout go; Norm becomes Power, a product with ones, Power and Eltwise,
which give the same numbers in Caffe, OpenCV's dnn and onnxruntime (--norm drop leaves it out, and
the host divides); MarginInnerProduct becomes an InnerProduct.

DIR gets deploy.prototxt and deploy.caffemodel, preprocess.json (how an image becomes the input),
README.md, and parity.json: for Caffe, OpenCV and, with --onnx, onnxruntime, where they are
installed, the greatest difference from the training net's outputs, relative to the largest, and the
least cosine. Unless all that ran agree to 1e-4, nothing is written into DIR.
"""

from __future__ import annotations

import importlib
import json
import tempfile
from pathlib import Path

from caffe_metric.deployment import preprocess, readme
from caffe_metric.deployment.deploy import Order, deploy
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
        help="of an image; default: as the net's data layer gives them",
    )
    parser.add_argument(
        "--norm", choices=["keep", "drop"], default="keep", help="of the output (keep)"
    )
    parser.add_argument(
        "--fold", action="store_true", help="BatchNorm and Scale into the layer before them"
    )
    parser.add_argument("--onnx", action="store_true", help="deploy.onnx as well")
    parser.add_argument(
        "--int8", metavar="IMAGES", help="deploy.int8.onnx as well, calibrated on these images"
    )
    parser.add_argument("-o", dest="out", required=True, metavar="DIR")


def run(args):
    if not Path(args.weights).is_file():
        raise UserError(f"{args.weights}: no such file")
    if args.shape and len(args.shape) != 3:
        raise UserError("--shape: C,H,W expected, such as 3,112,112")
    netfile.quiet_caffe()
    onnx = args.onnx or bool(args.int8)
    for module in ("onnx",) * onnx + ("onnxruntime",) * bool(args.int8):
        importlib.import_module(module)  # now, not when the net is half made
    order = Order(args.net, args.weights, args.blob, args.shape, args.norm, args.fold, onnx)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report = _in_child(args.net, lambda: deploy(order, folder))
        if not report["equal"]:
            raise UserError(f"{args.out}: nothing is written; {_disagreement(report)}")
        if args.int8:
            from caffe_metric.deployment import int8

            report["int8"] = _in_child(args.int8, lambda: int8.quantise(folder, args.int8))
            text = json.dumps(report, indent=2) + "\n"
            (folder / "parity.json").write_text(text, encoding="utf-8")
        files = sorted(path.name for path in folder.iterdir())
        guide = readme.text(preprocess.read(folder), report, files)
        (folder / "README.md").write_text(guide, encoding="utf-8")
        for file in (*files, "README.md"):
            with replacing(Path(args.out, file)) as path:
                path.write_bytes((folder / file).read_bytes())
    print(f"{args.out}: {report['blob']} of {report['numbers']} numbers; {_agreement(report)}")
    if args.int8:
        found = report["int8"]
        print(f"int8: cosine {found['cosine']['least']:.4f} to the float net at least", end="")
        verified = found.get("verification")
        if verified:
            aucs = (f"{verified[kind]['auc']:.4f}" for kind in ("float", "int8"))
            print("; AUC {} becomes {}".format(*aucs), end="")
        print()
    return 0


def _in_child(what, function):
    outcome = child.run(function)
    if not outcome.ok:
        raise UserError(f"{what}: {outcome.last_words}")
    return outcome.value


def _runs(report):
    return [(name, one) for name, one in report.items() if isinstance(one, dict) and "equal" in one]


def _agreement(report):
    return "greatest difference from the training net " + ", ".join(
        f"{one['relative_difference']:.1e} ({name})" for name, one in _runs(report)
    )


def _disagreement(report):
    return "; ".join(
        f"{name}: {one['error']}"
        if "error" in one
        else f"{name} differs by {one['relative_difference']} of the largest output"
        for name, one in _runs(report)
        if not one["equal"]
    )
