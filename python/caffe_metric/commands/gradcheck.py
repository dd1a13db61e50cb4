"""`caffe-metric gradcheck NET.prototxt`: is the gradient of each layer right?

Each layer of the net is taken out, with the bottoms and weights it has there, and its backward pass
is held against central differences of its forward pass. The objective is sum(r * top) with a random
r, so a gradient that forgets the top's diff (loss_weight) is found as well. Layers compute in
float32; the objective and the differences are float64.

A function has no one gradient at a kink: where the check passes right beside it, the verdict is
`unclear`, as it is where rounding hides the gradient. The exit status is 1 where one is FAIL.

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
    wrong, unclear = (
        sum(finding.verdict == verdict for finding in findings) for verdict in (FAIL, UNCLEAR)
    )
    said = f"{wrong} of {len(findings)} gradients wrong"
    said += f", {unclear} unclear" * (unclear > 0) + f" ({findings.about})"
    if wrong:
        raise UserError(f"{args.net}: {said}")
    if unclear:
        print(said)
    return 0
