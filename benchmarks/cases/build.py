"""How long `./run build` takes: again, when all is done; and the first time, as `run` noted it."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from benchmarks.rows import Result, Row

ROOT = Path(__file__).resolve().parent.parent.parent
FIRST_BUILD = ROOT / "build" / "log" / "first-build.seconds"
FIRST, AGAIN = 420.0, 3.0  # seconds


def run(threads: int, quick: bool) -> Result:
    result = Result([_row("when done", AGAIN, min(_again() for _ in range(1 if quick else 3)))])
    if FIRST_BUILD.is_file():
        seconds = float(FIRST_BUILD.read_text(encoding="ascii"))
        result.rows.append(_row("from nothing", FIRST, seconds))
    else:
        missing = "this tree was not built from nothing by ./run build"
        result.rows.append(
            Row("./run build", "from nothing", f"{FIRST:g} s", promise=1.0, missing=missing)
        )
    return result


def _again() -> float:
    began = time.perf_counter()
    subprocess.run([ROOT / "run", "build"], check=True, capture_output=True)
    return time.perf_counter() - began


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
