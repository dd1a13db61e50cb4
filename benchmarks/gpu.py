"""Checks and times the GPU layers: for someone who has a GPU, and a tree of their own built for it.

    python -m benchmarks.gpu [--device 0] [--tests build/test/test.testbin] [--json F] [--cpu]

Run it with the pycaffe of a Caffe that was patched and built with CUDA in PYTHONPATH. It checks
each layer against its CPU branch and against itself, run twice; then times forward and backward
of each, beside an InnerProduct layer of the same size, which is the matrix product below them.
With --tests it first runs the layers' gtests on the GPU. --cpu goes through all of it in CPU mode,
which tries this script and says nothing about a GPU.

Without such a tree, `./run gpu-bundle` makes one to carry there (docs/gpu.md), which checks more.
No GPU has run these layers yet: the first table that this prints is news. Please send it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from caffe_metric import suite
from caffe_metric.nets import one_layer

REPEATS = 20
# Those that run on the GPU: gtest's third and fourth types of a typed test do.
GPU_TESTS = "*GPU*:*Gpu*:*/2.*:*/3.*"
# Of the largest number of a blob: float32 sums in another order.
TOLERANCE = 1e-3

FEATURES = """
layer {{ name: "data" type: "Input" top: "x" input_param {{ shape {{ dim: {n} dim: {d} }} }} }}
layer {{ name: "labels" type: "Input" top: "y" input_param {{ shape {{ dim: {n} }} }} }}
"""
PLAIN = (
    'layer {{ name: "timed" type: "InnerProduct" bottom: "x" top: "z" inner_product_param {{ '
    'num_output: {c} bias_term: false weight_filler {{ type: "xavier" }} }} }}\n'
)
MININGS = ("ALL", "SEMIHARD", "VIOLATING", "HARDEST")


def cases(small):
    """[(name, net, N, D, labels a class, C of the InnerProduct to compare with)], of the suite."""
    n, d, c = (24, 16, 40) if small else (512, 512, 10572)
    many = 2 * n if small else 4096
    rows = []

    def add(kind, n, c, classes, title="", **parameters):
        layer = suite.find(kind)
        bottoms = ("x", "y") if suite.LABEL in layer.roles(2) else ("x",)
        given = {**layer.example, **parameters}
        net = FEATURES.format(n=n, d=d) + one_layer.layer(
            kind, bottoms, ("z",), given, name="timed"
        )
        rows.append((f"{kind}{title}", net, n, d, classes, c))

    for layer in suite.NATIVE:
        if "num_output" in layer.example:
            classes = n // 4 if layer.type in ("ProxyAnchorLoss", "CenterLoss") else c
            add(layer.type, n // 2, classes, classes, num_output=classes)
        elif "mining" in layer.example:
            for mining in MININGS:
                add(layer.type, n, n, n // 4, f" {mining}", mining=mining)
            add(layer.type, many, many, many // 4, " ALL, large batch", mining="ALL")
        else:
            add(layer.type, n, n, n // 4)
            if layer.loss:
                add(layer.type, many, many, many // 4, ", large batch")
    return rows


def make_net(caffe, text):
    with tempfile.NamedTemporaryFile("w", suffix=".prototxt", delete=False) as file:
        file.write("force_backward: true\n" + text)
    try:
        return caffe.Net(file.name, caffe.TRAIN)
    finally:
        os.unlink(file.name)


def fill(net, n, d, classes):
    """Unit rows, two and two of a class."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(n, d))
    net.blobs["x"].data[...] = x / np.linalg.norm(x, axis=1, keepdims=True)
    if "y" in net.blobs:
        net.blobs["y"].data[...] = np.arange(n) // 2 % classes


def timed_layer(net):
    return list(net._layer_names).index("timed")


def results(caffe, gpu, text, n, d, classes):
    """What one forward and backward leave in the top, the bottom's and the weights' diffs."""
    (caffe.set_mode_gpu if gpu else caffe.set_mode_cpu)()
    caffe.set_random_seed(7)
    net = make_net(caffe, text)
    fill(net, n, d, classes)
    caffe.set_random_seed(8)
    net.forward()
    top = net.blobs["z"]
    if top.data.size > 1:
        top.diff[...] = np.random.default_rng(2).normal(size=top.shape) / top.shape[0]
    layer = timed_layer(net)
    net._backward(layer, layer)
    found = [top.data, net.blobs["x"].diff]
    found += [blob.diff for blob in net.params["timed"][:1]] if "timed" in net.params else []
    return [array.copy() for array in found]


def check(caffe, gpu, text, n, d, classes):
    """(largest relative difference from the CPU, whether a second run gave the same bits)"""
    first, second = (results(caffe, gpu, text, n, d, classes) for _ in range(2))
    on_cpu = results(caffe, False, text, n, d, classes)
    error = max(
        float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)) for a, b in zip(first, on_cpu)
    )
    same = all(np.array_equal(a, b, equal_nan=True) for a, b in zip(first, second))
    return error, same


def measure(caffe, gpu, text, n, d, classes):
    """Median milliseconds of the layer's forward and backward."""
    (caffe.set_mode_gpu if gpu else caffe.set_mode_cpu)()
    net = make_net(caffe, text)
    fill(net, n, d, classes)
    net.forward()
    layer = timed_layer(net)
    times = [[], []]
    for repeat in range(REPEATS + 3):
        for direction, run in enumerate((net._forward, net._backward)):
            begin = time.perf_counter()
            run(layer, layer)
            # Reading one blob waits for the GPU; it is part of both sides of a ratio.
            (net.blobs["z"].data if direction == 0 else net.blobs["x"].diff).item(0)
            if repeat >= 3:
                times[direction].append(1e3 * (time.perf_counter() - begin))
    return [statistics.median(of_direction) for of_direction in times]


def run_gtests(program):
    """Runs the layers' gtests on the GPU, and the parity tests once more for their bits."""
    hashes = []
    for run in range(2):
        with tempfile.NamedTemporaryFile("r", suffix=".bits") as bits:
            only = GPU_TESTS if run == 0 else "GpuParity*"
            done = subprocess.run(
                [program, f"--gtest_filter={only}"],
                env={**os.environ, "METRIC_BITS": bits.name},
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                print(done.stdout[-3000:])
                return False
            hashes.append(bits.read())
    return bool(hashes[0]) and hashes[0] == hashes[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", type=int, default=0)
    parser.add_argument("--tests", type=Path, help="test.testbin of the tree, to be run first")
    parser.add_argument("--json", type=Path, help="write the measurements to this file")
    parser.add_argument("--cpu", action="store_true", help="try this script, small, without a GPU")
    arguments = parser.parse_args()
    os.environ.setdefault("GLOG_minloglevel", "2")
    try:
        import caffe
    except ImportError as error:
        print(f"gpu: pycaffe is not in PYTHONPATH: {error}", file=sys.stderr)
        return 1
    gpu = not arguments.cpu
    if gpu:
        caffe.set_device(arguments.device)
    failed = []
    if arguments.tests:
        passed = run_gtests(arguments.tests)
        print(f"gtests: {'passed, the same bits twice' if passed else 'FAILED'}")
        failed += [] if passed else ["gtests"]
    rows = []
    head = f"{'layer':<36} {'N':>5} {'D':>5} {'error':>8} {'repeats':>8} "
    print(head + f"{'forward':>9} {'backward':>9} {'product':>9} {'ratio':>6}")
    for name, net, n, d, classes, c in cases(small=arguments.cpu):
        error, same = check(caffe, gpu, net, n, d, classes)
        forward, backward = measure(caffe, gpu, net, n, d, classes)
        plain = sum(measure(caffe, gpu, FEATURES.format(n=n, d=d) + PLAIN.format(c=c), n, d, 1))
        ratio = (forward + backward) / plain
        good = error <= TOLERANCE and same
        failed += [] if good else [name]
        rows.append(
            {
                "layer": name,
                "rows": n,
                "dimension": d,
                "error": error,
                "same_bits": same,
                "forward_ms": forward,
                "backward_ms": backward,
                "inner_product_ms": plain,
            }
        )
        print(
            f"{name:<36} {n:>5} {d:>5} {error:>8.1e} {'same' if same else 'OTHER':>8} "
            f"{forward:>9.3f} {backward:>9.3f} {plain:>9.3f} {ratio:>6.2f}"
            f"{'' if good else '  <- wrong'}"
        )
    if arguments.json:
        report = {"mode": "gpu" if gpu else "cpu", "host": platform.platform(), "rows": rows}
        temporary = arguments.json.with_name(arguments.json.name + ".new")
        temporary.write_text(json.dumps(report, indent=1) + "\n")
        temporary.replace(arguments.json)
    if failed:
        print(f"gpu: wrong: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
