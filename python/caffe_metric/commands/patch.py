"""Adds the layers to a Caffe source tree, or takes them out again, byte for byte.

caffe.proto gets our messages and fields by its structure; layers, headers and gtests are copied
to where Caffe's own builds (CMake and Makefile) pick them up; known breaks with current compilers
and libraries are mended where the tree has them. All of it happens, or nothing. A tree that has
layers, messages or fields of our names is reported and left alone, unless --replace is given.

Exit status: 0; 1 for an error, a clash, or a --check that finds the tree not patched, touched
since, or patched by another release; 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import sys

from caffe_metric.patch.mends import MENDS
from caffe_metric.patch.operations import ClashError, Report, apply, check, revert


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", metavar="CAFFE_ROOT", help="the top folder of a Caffe source tree")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--check", action="store_true", help="say whether the tree is patched and whole"
    )
    what.add_argument("--dry-run", action="store_true", help="print the diff, change nothing")
    what.add_argument("--revert", action="store_true", help="take the patch out, byte for byte")
    parser.add_argument(
        "--replace",
        action="store_true",
        default=None,
        help="put ours in the place of the tree's layers, messages and fields of the same names",
    )
    parser.add_argument(
        "--no-replace",
        dest="replace",
        action="store_false",
        help="take an earlier --replace back",
    )
    parser.add_argument(
        "--without",
        action="append",
        metavar="MEND",
        help="leave out a mend (several: --without A,B; `none` leaves out none; `all` all)",
    )
    parser.epilog = "mends:\n" + "\n".join(f"  {mend.name}: {mend.reason}" for mend in MENDS)


def run(args: argparse.Namespace) -> int:
    if args.check:
        return _check(args.root)
    if args.revert:
        done = revert(args.root)
        print(
            f"{args.root}: as before the patch"
            if done
            else f"{args.root}: not patched, nothing to do"
        )
        return 0
    try:
        report = apply(args.root, args.replace, _names(args.without), args.dry_run)
    except ClashError as error:
        for clash in error.clashes:
            print(clash)
        raise
    if args.dry_run:
        sys.stdout.flush()
        sys.stdout.buffer.write(report.diff)
        sys.stdout.buffer.flush()
    _tell(report, sys.stderr if args.dry_run else sys.stdout)
    return 0


def _names(without: list[str] | None) -> tuple[str, ...] | None:
    if without is None:
        return None
    names = {name for part in without for name in part.split(",")} - {"", "none"}
    return tuple(mend.name for mend in MENDS) if "all" in names else tuple(sorted(names))


def _check(root: str) -> int:
    status = check(root)
    if not status.version:
        print(f"{root}: not patched")
        return 1
    print(f"{root}: patched by caffe-metric {status.version}")
    for words in status.touched:
        print(f"  {words}")
    for words in status.notes:
        print(f"  {words}")
    if not status.current:
        print("  by other files than this release's: run `caffe-metric patch` again")
    return 0 if status.whole else 1


def _tell(report: Report, stream) -> None:
    plan = report.plan
    would = "would be " if stream is sys.stderr else ""
    if not report.changed:
        print(f"{report.root}: patched already, nothing to do", file=stream)
    else:
        counts: dict[str, int] = {}
        for entry in report.change.entries.values():
            counts[entry.action] = counts.get(entry.action, 0) + 1
        words = ", ".join(f"{count} {action}" for action, count in sorted(counts.items()))
        print(f"{report.root}: {would}patched; files: {words}", file=stream)
        print(
            "build as before; with CMake, configure again first: there are new files", file=stream
        )
    if not plan.kind.layers_fit:
        print(
            f"only caffe.proto is patched: {plan.kind.reason}. "
            "Use the Python layers of caffe_metric.layers here.",
            file=stream,
        )
    reasons = {mend.name: mend.reason for mend in MENDS}
    for name, places in plan.mended.items() if report.changed else ():
        print(f"mend {name}: {reasons[name]} ({', '.join(places)})", file=stream)
    for clash in plan.clashes if report.changed else ():
        print(f"replaced: {clash}", file=stream)
    for warning in plan.warnings if report.changed else ():
        print(f"warning: {warning}", file=stream)
