"""How long `./run build` takes: again, when all is done; and the first time, as `run` noted it."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from benchmarks.rows import Result, Row

ROOT = Path(__file__).resolve().parent.parent.parent
FIRST_BUILD = ROOT / "build" / "log" / "first-build.seconds"
FIRST, AGAIN = 420.0, 3.0  # seconds
PATIENCE = 60  # seconds
# No pipe: one that waits for the lock would keep it open.
QUIETLY = {
    "check": True,
    "timeout": PATIENCE,
    "stdout": subprocess.DEVNULL,
    "stderr": subprocess.DEVNULL,
}


def run(threads: int, quick: bool) -> Result:
    return Result([_again(1 if quick else 3), _first()])


def _again(times: int) -> Row:
    """The quickest of some builds that have nothing to do; another build may hold them up."""
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        try:
            subprocess.run([ROOT / "run", "build"], **QUIETLY)
        except subprocess.TimeoutExpired:
            return _missing("when done already", AGAIN, f"still at work after {PATIENCE} s")
        seconds.append(time.perf_counter() - began)
    return _row("when done already", AGAIN, min(seconds))


def _first() -> Row:
    if not FIRST_BUILD.is_file():
        missing = "this tree was not built from nothing by ./run build"
        return _missing("from nothing", FIRST, missing)
    return _row("from nothing", FIRST, float(FIRST_BUILD.read_text(encoding="ascii")))


def _missing(size: str, promise: float, why: str) -> Row:
    return Row("./run build", size, f"{promise:g} s", promise=1.0, missing=why)


def _row(size: str, promise: float, seconds: float) -> Row:
    return Row(
        what="./run build",
        size=size,
        peer=f"{promise:g} s",
        unit="s",
        ours=seconds,
        theirs=promise,
        ratio=seconds / promise,
        promise=1.0,
    )
