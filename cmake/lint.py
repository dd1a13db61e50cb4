"""All linters, each on all files: ruff, clang-format, Caffe's own cpp_lint.py, shellcheck, and
whether docs/reference is current.

    lint.py CAFFE_SOURCE

Caffe's script checks what may go upstream; the host build of the GPU code and
the Python bindings stand outside Caffe and use what Caffe forbids (memcpy,
pybind11), so they are only formatted.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CPP_FOLDERS = ("include", "src", "tests/cpp", "tests/hostcuda", "benchmarks")
CAFFE_FOLDERS = ("include", "src/caffe", "tests/cpp")
SUFFIXES = (".cpp", ".cu", ".cuh", ".hpp")


def cpp_files(folders: tuple[str, ...]) -> list[str]:
    """C++ and CUDA files below the folders."""
    return sorted(
        str(path.relative_to(ROOT))
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.suffix in SUFFIXES
    )


def shell_scripts() -> list[str]:
    """The scripts that build and test on other systems, and check a GPU."""
    found = [*ROOT.glob("tests/systems/*.sh"), *ROOT.glob("benchmarks/gpu/*.sh")]
    return sorted(str(path.relative_to(ROOT)) for path in found)


def main() -> int:
    cpp_lint = Path(sys.argv[1], "scripts", "cpp_lint.py").resolve()
    python = [sys.executable, "-W", "ignore::DeprecationWarning"]
    tools = Path(sys.executable).parent
    linters = {
        "ruff check": [tools / "ruff", "check", "--quiet", "--output-format=concise", "."],
        "ruff format": [tools / "ruff", "format", "--quiet", "--check", "."],
        "clang-format": [
            *(tools / "clang-format", "--dry-run", "-Werror", "--ferror-limit=3"),
            *cpp_files(CPP_FOLDERS),
        ],
        "Caffe's cpp_lint": [*python, cpp_lint, *cpp_files(CAFFE_FOLDERS)],
        # What `run` sources is checked with it, since it uses its variables.
        "shellcheck": [
            *("shellcheck", "--format=gcc", "--external-sources", "--check-sourced"),
            *("run", ".ci/run", *shell_scripts()),
        ],
        "reference pages": [*python, "cmake/reference_pages.py", "--check"],
    }
    # The package is read where it stands: it may not be installed yet.
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "python")}
    failed = []
    for name, command in linters.items():
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            failed.append(name)
            noise = ("Done processing", "Total errors found")
            print(*(row for row in done.stdout.splitlines() if not row.startswith(noise)), sep="\n")
        print(f"{name:<20} {'ok' if done.returncode == 0 else 'failed'}", flush=True)
    if failed:
        print(f"run: lint: {', '.join(failed)} found something", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
