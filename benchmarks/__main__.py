"""`python -m benchmarks`: measures every promise, prints a table, and fails where one is broken."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import older, plot, table
from benchmarks.cases import ALL_THREADS, CASES
from benchmarks.rows import Result

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "build" / "bench"


class CaseError(Exception):
    """Says why a case has no result."""


def run_case(case: str, threads: int, quick: bool) -> Result:
    """Runs a case in a process of its own, with that many threads of BLAS and OpenMP."""
    count = str(threads)
    environment = {**os.environ, "GLOG_minloglevel": "2"}
    environment.update(OPENBLAS_NUM_THREADS=count, OMP_NUM_THREADS=count, MKL_NUM_THREADS=count)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "result.json")
        speed = "quick" if quick else "full"
        command = [sys.executable, "-m", "benchmarks.child", case, count, speed, str(output)]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
        if done.returncode != 0:
            last = (done.stderr.strip() or f"ended with {done.returncode}").splitlines()[-1]
            raise CaseError(f"{case}, {threads} threads: {last}")
        return Result.of(json.loads(output.read_text(encoding="utf-8")))


def machine() -> dict:
    """What the numbers belong to."""
    model = platform.processor()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }


def measure(cases: list[str], quick: bool) -> tuple[Result, list[str]]:
    """All cases with one thread, then those that can use more with all; and what went wrong."""
    runs = [(case, 1) for case in cases]
    if (os.cpu_count() or 1) > 1:
        runs += [(case, os.cpu_count()) for case in cases if case in ALL_THREADS]
    total = Result()
    errors = []
    for number, (case, threads) in enumerate(runs, 1):
        if sys.stdout.isatty():
            print(f"\r\033[K[{number}/{len(runs)}] {case}", end="", flush=True)
        try:
            result = run_case(case, threads, quick)
        except CaseError as error:
            errors.append(str(error))
            continue
        total.rows += result.rows
        total.points += result.points
    if sys.stdout.isatty():
        print("\r\033[K", end="")
    return total, errors


def write(name: str, text: str) -> Path:
    """Writes a file of the output folder, beside it first."""
    new = OUTPUT / f"{name}.new"
    new.write_text(text, encoding="utf-8")
    return new.replace(OUTPUT / name)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("case", nargs="*", help=f"of {', '.join(CASES)}; all where none is named")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and smaller sizes")
    args = parser.parse_args(argv)
    for case in args.case:
        if case not in CASES:
            parser.error(f"no such case: {case}")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    about = machine()
    try:
        older.build()
    except older.BuildError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    result, errors = measure(args.case or list(CASES), args.quick)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    written = [
        write("results.json", json.dumps({"machine": about, **result.as_dict()}, indent=1) + "\n"),
        write("results.md", table.markdown(result.rows, about)),
        *plot.draw(result, OUTPUT),
    ]
    print(table.text(result.rows, about))
    print("\nWritten:", *(str(path.relative_to(ROOT)) for path in written))
    broken = sum(row.verdict == "BROKEN" for row in result.rows)
    if broken:
        errors.append(f"{broken} of the promised rows do not hold")
    for error in errors:
        print(f"bench: {error}", file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
