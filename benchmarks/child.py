"""Runs one case, in this process: `python -m benchmarks.child CASE THREADS QUICK OUTPUT`."""

from __future__ import annotations

import importlib
import json
import sys


def main(case: str, threads: str, quick: str, output: str) -> None:
    module = importlib.import_module(f"benchmarks.cases.{case}")
    result = module.run(int(threads), quick == "quick")
    with open(output, "w", encoding="utf-8") as file:
        json.dump(result.as_dict(), file)


if __name__ == "__main__":
    main(*sys.argv[1:])
