"""What compilations of the layers' .cu files share: the sources, a compiler's run, the verdict."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "src" / "caffe").glob("*/*.cu"))
SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")


class CudaError(Exception):
    """Says what could not be compiled, and why."""


def run(*command):
    """What the command printed, on both streams."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        output = done.stdout + done.stderr
        first = re.search(r"^.*\b(?:error|fatal)\b.*$", output, re.M)
        raise CudaError(first.group() if first else output.strip().splitlines()[-1])
    return done.stdout + done.stderr


def in_turn(sources):
    """Each source, named on stderr as it comes, with how many there are."""
    for i, source in enumerate(sources, 1):
        print(f"[{i}/{len(sources)}] {source.name}", file=sys.stderr, flush=True)
        yield source


def main(description, paths, build):
    """build(*paths) gives the number of kernels that spill; the exit status."""
    parser = argparse.ArgumentParser(description=description)
    for name in paths:
        parser.add_argument(name, type=Path)
    try:
        spilling = build(*vars(parser.parse_args()).values())
    except (CudaError, OSError) as error:
        print(f"error: {error}")
        return 1
    if spilling:
        print(f"error: {spilling} kernels spill registers")
    return 1 if spilling else 0
