"""Compiles the layers' .cu files with NVIDIA's compiler, and lists what each kernel takes.

    cuda_kernels.py TOOLKIT TREE OUT

TOOLKIT is a CUDA toolkit's folder, TREE a patched Caffe tree, OUT gets the object files and
kernels.json. Any warning of the compiler is an error, and so is a register that spills: a kernel
that spills waits for memory where it should compute. No GPU is needed, and none is used.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

from cuda_compile import ROOT, SOURCES, SPILLS, CudaError, in_turn, main, run

ARCHITECTURES = (75, 80, 86, 89, 90)
PTX = 90

ENTRY = re.compile(r"Compiling entry function '(\S+)' for 'sm_(\d+)'")
USED = re.compile(r"Used (\d+) registers(?:.*?(\d+) bytes smem)?")


def make_proto_header(tree, out):
    """caffe.pb.h of the tree, where Caffe's headers look for it."""
    folder = out / "include" / "caffe" / "proto"
    folder.mkdir(parents=True, exist_ok=True)
    proto = tree / "src" / "caffe" / "proto"
    run("protoc", f"--cpp_out={folder}", f"-I{proto}", str(proto / "caffe.proto"))


def compile_layer(toolkit, tree, out, source):
    """Compiles one .cu; what ptxas says about it."""
    command = [
        *(str(toolkit / "bin" / "nvcc"), "-c", str(source), "-o", str(out / f"{source.stem}.o")),
        *("-O2", "-std=c++17", "--threads", str(os.cpu_count() or 1)),
        *("-Werror", "all-warnings", "-Xptxas", "-v"),
        *(f"-I{folder}" for folder in (ROOT / "include", out / "include", tree / "include")),
    ]
    for folder in ("/usr/include/hdf5/serial", "/usr/include/openblas"):
        command.append(f"-I{folder}")
    for architecture in ARCHITECTURES:
        command += ["-gencode", f"arch=compute_{architecture},code=sm_{architecture}"]
    command += ["-gencode", f"arch=compute_{PTX},code=compute_{PTX}"]
    return run(*command)


def read_kernels(report):
    """[{kernel, architecture, registers, shared, spills}] of what ptxas printed."""
    kernels = []
    for line in report.splitlines():
        if match := ENTRY.search(line):
            kernels.append(
                {"kernel": match.group(1), "architecture": int(match.group(2)), "shared": 0}
            )
        elif kernels and (match := SPILLS.search(line)):
            kernels[-1]["spills"] = int(match.group(1)) + int(match.group(2))
        elif kernels and (match := USED.search(line)):
            kernels[-1]["registers"] = int(match.group(1))
            kernels[-1]["shared"] = int(match.group(2) or 0)
    return kernels


def readable_names(names):
    """{mangled: "NormRows<float>"}"""
    names = sorted(set(names))
    done = subprocess.run(
        ["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True
    )
    plain = {}
    for mangled, name in zip(names, done.stdout.splitlines()):
        name = name.replace("caffe_metric::", "").replace("caffe::", "")
        plain[mangled] = re.sub(r"^void ", "", name).split("(")[0]
    return plain


def table(kernels):
    """Rows of text: a kernel with its registers by architecture, shared memory and spills."""
    heads = [f"sm_{a}" for a in ARCHITECTURES]
    width = max(len(name) for name, _ in kernels)
    yield f"{'registers a thread':<{width}}  " + "  ".join(heads) + "  shared  spills"
    for name, on in kernels:
        registers = "  ".join(f"{on[a]['registers']:>5}" for a in ARCHITECTURES)
        shared = max(kernel["shared"] for kernel in on.values())
        spills = max(kernel["spills"] for kernel in on.values())
        yield f"{name:<{width}}  {registers}  {shared:>6}  {spills:>6}"


def build(toolkit, tree, out):
    """Compiles all layers and prints the table; the number of kernels that spill."""
    if not (toolkit / "bin" / "nvcc").is_file():
        raise CudaError(f"{toolkit} has no bin/nvcc")
    if shutil.which("protoc") is None:
        raise CudaError("protoc is not installed")
    make_proto_header(tree, out)
    found = []
    for source in in_turn(SOURCES):
        found += read_kernels(compile_layer(toolkit, tree, out, source))
    names = readable_names(kernel["kernel"] for kernel in found)
    for kernel in found:
        kernel["kernel"] = names[kernel["kernel"]]
    by_name = {}
    for kernel in found:
        by_name.setdefault(kernel["kernel"], {})[kernel["architecture"]] = kernel
    print(*table(sorted(by_name.items())), sep="\n")
    temporary = out / "kernels.json.new"
    temporary.write_text(json.dumps(found, indent=1) + "\n")
    temporary.replace(out / "kernels.json")
    return sum(kernel["spills"] > 0 for kernel in found)


if __name__ == "__main__":
    sys.exit(main(__doc__.splitlines()[0], ("toolkit", "tree", "out"), build))
