"""`caffe-metric gradcheck NET.prototxt`: is the gradient of each layer right?

Each layer of the net is taken out, with the bottoms and weights it has there, and its backward pass
is held against central differences of its forward pass. The objective is sum(r * top) with a random
r, so a gradient that forgets the top's diff (loss_weight) is found as well. Layers compute in
float32; the objective and the differences are float64.

A net that reads a database or a list is given a batch of a few rows, chosen by class. The last line
ends in the seed and the batch: the same seed repeats the check, another one takes other elements.
"""

from __future__ import annotations

import dataclasses
import json
import os

# Many small products are faster on one core; NumPy's and Caffe's libraries read it as they load.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from caffe_metric.gradients.check import FAIL, PROBES, TOLERANCE, UNCLEAR, gradcheck  # noqa: E402
from caffe_metric.support.arguments import finite, natural, positive  # noqa: E402
from caffe_metric.support.errors import UserError  # noqa: E402
from caffe_metric.support.files import replacing  # noqa: E402


def add_arguments(parser) -> None:
    parser.add_argument("net", metavar="NET.prototxt")
    parser.add_argument("--layer", metavar="NAME", help="check this layer only")
    parser.add_argument("--weights", metavar="W.caffemodel", help="trained weights to start from")
    parser.add_argument("--data", metavar="F.npz", help="arrays for the net's inputs, by name")
    parser.add_argument("--phase", choices=["train", "test"], default="train")
    parser.add_argument("--json", metavar="F", help="writes the table to a file too")
    parser.add_argument("--seed", type=natural, default=0)
    parser.add_argument(
        "--tolerance", type=finite, default=TOLERANCE, help="greatest relative error (%(default)s)"
    )
    parser.add_argument(
        "--probes", type=positive, default=PROBES, help="elements to perturb a blob (%(default)s)"
    )


def run(args) -> int:
    findings = gradcheck(
        args.net,
        layer=args.layer,
        weights=args.weights,
        data=args.data,
        phase=args.phase,
        seed=args.seed,
        tolerance=args.tolerance,
        probes=args.probes,
    )
    print(findings)
    if args.json:
        with replacing(args.json) as path:
            rows = [dataclasses.asdict(finding) for finding in findings]
            path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    bad = [finding for finding in findings if finding.verdict in (FAIL, UNCLEAR)]
    if bad:
        wrong = sum(finding.verdict == FAIL for finding in bad)
        raise UserError(
            f"{args.net}: {wrong} of {len(findings)} gradients wrong"
            + (f", {len(bad) - wrong} unclear" if wrong < len(bad) else "")
            + f" ({findings.about})"
        )
    return 0
