"""Compiles the layers' .cu files as the toolkits of older trees would: by clang, as C++11.

    cuda_older.py REQUIREMENTS TREE OUT

The packages of REQUIREMENTS hold the headers, libdevice and ptxas of CUDA 11 and 12, but no nvcc:
clang compiles the device code to PTX, and that CUDA's own ptxas to machine code. The third column
is without warp shuffles, which CUDA 8 has not as they are today: shared memory takes their place.
A warning is an error, and so is a register that spills. TREE is a built, patched Caffe tree.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONFIGURATIONS = (
    # CUDA, architecture, defines
    ("11", "sm_35", ()),
    ("11", "sm_60", ()),
    ("11", "sm_35", ("CAFFE_METRIC_NO_SHUFFLES",)),
    ("12", "sm_50", ()),
    ("12", "sm_90", ()),
)
SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
KERNELS = re.compile(r"Compiling entry function")


class CudaError(Exception):
    """Says what could not be compiled, and why."""


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        output = done.stdout + done.stderr
        first = re.search(r"^.*\b(?:error|fatal)\b.*$", output, re.M)
        raise CudaError(first.group() if first else output.strip().splitlines()[-1])
    return done.stdout + done.stderr


def find_clang():
    """The newest clang: those before 19 know neither CUDA 12 nor its architectures."""
    for name in ("clang++-22", "clang++-21", "clang++-20", "clang++-19"):
        if shutil.which(name):
            return name
    raise CudaError("no clang++-19 or newer: Debian's package clang-19 has it")


def make_toolkits(requirements, out):
    """Folders as clang looks for them, one a version: include, bin/ptxas and nvvm/libdevice."""
    done = out / "requirements.txt"
    if done.is_file() and done.read_text() == requirements.read_text():
        return
    wheels = out / "wheels"
    run(
        *(sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps"),
        *("--dest", str(wheels), "-r", str(requirements)),
    )
    for wheel in sorted(wheels.glob("*.whl")):
        version = re.search(r"_cu(\d+)-", wheel.name).group(1)
        toolkit = out / f"cuda{version}"
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                # nvidia/cuda_runtime/include/..., of each package the same folders
                parts = Path(name).parts
                if len(parts) > 3 and parts[2] in ("include", "bin", "nvvm"):
                    target = toolkit.joinpath(*parts[2:])
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(archive.read(name))
        (toolkit / "lib64").mkdir(parents=True, exist_ok=True)
    for ptxas in out.glob("cuda*/bin/ptxas"):
        ptxas.chmod(0o755)
    shutil.rmtree(wheels)
    shutil.copy(requirements, done)


def compile_layer(clang, toolkit, tree, architecture, defines, source, ptx):
    """(kernels, kernels that spill)"""
    run(
        *(clang, "-x", "cuda", f"--cuda-path={toolkit}", f"--cuda-gpu-arch={architecture}"),
        *("--cuda-device-only", "-std=c++11", "-O2", "-Wall", "-Werror", "-Wno-sign-compare"),
        *("-Wno-unknown-cuda-version", *(f"-D{define}" for define in defines)),
        f"-I{ROOT / 'include'}",
        *(f"-isystem{folder}" for folder in (tree / "build" / "include", tree / "include")),
        *("-isystem/usr/include/hdf5/serial", "-isystem/usr/include/openblas"),
        *("-S", "-o", str(ptx), str(source)),
    )
    ptxas = toolkit / "bin" / "ptxas"
    cubin = ptx.with_suffix(".cubin")
    report = run(str(ptxas), f"-arch={architecture}", "-v", "-o", str(cubin), str(ptx))
    spills = sum(int(a) + int(b) > 0 for a, b in SPILLS.findall(report))
    return len(KERNELS.findall(report)), spills


def build(requirements, tree, out):
    """Compiles all layers and prints the table; the number of kernels that spill."""
    clang = find_clang()
    out.mkdir(parents=True, exist_ok=True)
    make_toolkits(requirements, out)
    sources = sorted((ROOT / "src" / "caffe").glob("*/*.cu"))
    width = max(len(source.name) for source in sources)
    heads = [
        f"CUDA {cuda} {architecture}{' shared' if defines else ''}"
        for cuda, architecture, defines in CONFIGURATIONS
    ]
    print(f"{'kernels, -std=c++11':<{width}}  " + "  ".join(heads))
    spilling = 0
    for i, source in enumerate(sources, 1):
        print(f"[{i}/{len(sources)}] {source.name}", file=sys.stderr, flush=True)
        line = f"{source.name:<{width}}"
        for head, (cuda, architecture, defines) in zip(heads, CONFIGURATIONS):
            ptx = out / f"{source.stem}.ptx"
            kernels, spills = compile_layer(
                clang, out / f"cuda{cuda}", tree, architecture, defines, source, ptx
            )
            line += f"  {kernels:>{len(head)}}"
            spilling += spills
        print(line, flush=True)
    return spilling


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("requirements", "tree", "out"):
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()
    try:
        spilling = build(arguments.requirements, arguments.tree, arguments.out)
    except (CudaError, OSError) as error:
        print(f"error: {error}")
        return 1
    if spilling:
        print(f"error: {spilling} kernels spill registers")
    return 1 if spilling else 0


if __name__ == "__main__":
    sys.exit(main())
