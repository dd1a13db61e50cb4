"""Compiles the layers' .cu files as the toolkits of older trees would: by clang, as C++11.

    cuda_older.py REQUIREMENTS TREE OUT

The packages of REQUIREMENTS hold the headers, libdevice and ptxas of CUDA 11 and 12, but no nvcc:
clang compiles the device code to PTX, and that CUDA's own ptxas to machine code. The third column
is without warp shuffles, which CUDA 8 has not as they are today: shared memory takes their place.
A warning is an error, and so is a register that spills. TREE is a built, patched Caffe tree.
"""

from __future__ import annotations

import re
import shutil
import sys
import zipfile
from pathlib import Path

from cuda_compile import ROOT, SOURCES, SPILLS, CudaError, in_turn, main, run

CONFIGURATIONS = (
    # CUDA, architecture, defines
    ("11", "sm_35", ()),
    ("11", "sm_60", ()),
    ("11", "sm_35", ("CAFFE_METRIC_NO_SHUFFLES",)),
    ("12", "sm_50", ()),
    ("12", "sm_90", ()),
)
KERNELS = re.compile(r"Compiling entry function")


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
    width = max(len(source.name) for source in SOURCES)
    heads = [
        f"CUDA {cuda} {architecture}{' shared' if defines else ''}"
        for cuda, architecture, defines in CONFIGURATIONS
    ]
    print(f"{'kernels, -std=c++11':<{width}}  " + "  ".join(heads))
    spilling = 0
    for source in in_turn(SOURCES):
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


if __name__ == "__main__":
    sys.exit(main(__doc__.splitlines()[0], ("requirements", "tree", "out"), build))
