"""`caffe-metric lint NET.prototxt`: what would fail, or train wrongly, before Caffe aborts.

The net is read with the patched schema and checked for both phases: bottoms and tops, batch sizes
against group sizes, labels where the data can be read, parameters, the solver's hold on weights
that are not learned, the order of pairs. `--weights` compares a model with the net. `--build` lets
Caffe itself set the net up, too, in a child process.

Findings go to stdout, one a line. Errors, but not warnings, make the exit status 1.
"""

from __future__ import annotations

from caffe_metric.lint import check
from caffe_metric.nets import netschema
from caffe_metric.support.errors import UserError


def add_arguments(parser) -> None:
    parser.add_argument("net", metavar="NET.prototxt")
    parser.add_argument("--weights", metavar="W.caffemodel", help="a model the net should load")
    parser.add_argument("--solver", metavar="S.prototxt", help="the solver that will train it")
    parser.add_argument("--build", action="store_true", help="let Caffe set the net up, too")


def run(args) -> int:
    max_iter = None
    if args.solver:
        from caffe_metric.training.solver import read_solver

        max_iter = read_solver(args.solver).max_iter
    findings = check(args.net, args.weights, args.build, max_iter)
    if not netschema.load().complete:
        print(f"{args.net}: note: no pycaffe here, so fields of Caffe's own layers are unchecked")
    for finding in findings:
        print(f"{args.net}:{finding.line or 1}: {finding}")
    errors = sum(finding.severity == "error" for finding in findings)
    warnings = sum(finding.severity == "warning" for finding in findings)
    if errors:
        also = f" and {warnings} warning(s)" if warnings else ""
        raise UserError(f"{args.net}: {errors} error(s){also}")
    if not warnings:
        print(f"{args.net}: nothing to complain about")
    return 0
