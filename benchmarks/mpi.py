"""`python -m benchmarks.mpi`: training with several ranks on this machine, and sharded classes.

    python -m benchmarks.mpi curve [--ranks 1 2 3] [--steps 60]
    python -m benchmarks.mpi sharded [--ranks 4] [--classes 1000000] [--features 512] [--rows 64]
                                     [--sample-rate 0.1]
    python -m benchmarks.mpi predict

curve: images a second of the demo's LeNet with a margin, by `caffe-metric train`, 128 images a rank
and one BLAS thread a rank. sharded: time of a step and memory of a rank, of
ShardedMarginSoftmaxLoss alone, forward, backward and update. predict: what docs/mpi.md says of 8
machines, from this machine's time of an image and the volume by formula.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "GLOG_minloglevel": "2",
}
IMAGES = 128
DATA = """
layer {{ name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {{
  shape {{ dim: {0} dim: 1 dim: 28 dim: 28 }} shape {{ dim: {0} }}
  data_filler {{ type: "constant" value: 0.5 }} data_filler {{ type: "constant" }} }} }}
"""
LENET = """
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" convolution_param {
  num_output: 20 kernel_size: 5 weight_filler { type: "xavier" } } }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "conv2" type: "Convolution" bottom: "pool1" top: "conv2" convolution_param {
  num_output: 50 kernel_size: 5 weight_filler { type: "xavier" } } }
layer { name: "pool2" type: "Pooling" bottom: "conv2" top: "pool2"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "ip1" type: "InnerProduct" bottom: "pool2" top: "ip1" inner_product_param {
  num_output: 500 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "embedding" type: "InnerProduct" bottom: "ip1" top: "embedding"
  inner_product_param { num_output: 64 weight_filler { type: "xavier" } } }
layer { name: "margin" type: "MarginInnerProduct" bottom: "embedding" bottom: "label" top: "margin"
  margin_inner_product_param { num_output: 7 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "margin" bottom: "label" top: "loss" }
"""
# Numbers of LENET: weights and biases of its layers.
LENET_PARAMETERS = (20 * 25 + 20) + (50 * 500 + 50) + (500 * 800 + 500) + (64 * 500 + 64) + 7 * 64
# ResFace-28, the net of Wen et al. 2016 (caffe-face) on 112 x 96 pixels: of its 3 x 3 convolutions
# inputs, outputs, how many, and the places of an output; then a product of 512 x 5 x 4 features.
RESFACE = [
    (3, 32, 1, 110 * 94),
    (32, 64, 1, 108 * 92),
    (64, 64, 2, 54 * 46),
    (64, 128, 1, 52 * 44),
    (128, 128, 4, 26 * 22),
    (128, 256, 1, 24 * 20),
    (256, 256, 10, 12 * 10),
    (256, 512, 1, 10 * 8),
    (512, 512, 6, 5 * 4),
]
FEATURES = 512
RESFACE_PARAMETERS = sum(9 * i * o * n for i, o, n, _ in RESFACE) + FEATURES * FEATURES * 20
RESFACE_PRODUCTS = sum(9 * i * o * n * size for i, o, n, size in RESFACE) + FEATURES**2 * 20


def mpirun(ranks, command, folder):
    run = ["mpirun", "--oversubscribe", "-n", str(ranks), *command] if ranks > 1 else command
    path = os.pathsep.join(filter(None, [str(ROOT / "python"), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, **MPI, "PYTHONPATH": path}
    done = subprocess.run(run, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"benchmarks.mpi: {(done.stderr.strip() or 'no output').splitlines()[0]}")
    return done.stdout


# --- The curve ------------------------------------------------------------------------------------


def write_lenet(folder, steps):
    folder.mkdir(exist_ok=True)
    (folder / "net.prototxt").write_text(DATA.format(IMAGES) + LENET)
    (folder / "solver.prototxt").write_text(
        f'net: "net.prototxt" base_lr: 0.001 lr_policy: "fixed" max_iter: {steps} '
        'snapshot_prefix: "bench" solver_mode: CPU display: 1000'
    )


def train_once(ranks, steps):
    """(images a second, MB and ms that an iteration exchanged)."""
    with tempfile.TemporaryDirectory() as folder:
        write_lenet(Path(folder), steps)
        command = [sys.executable, "-m", "caffe_metric", "train", "--solver", "solver.prototxt"]
        out = mpirun(ranks, command, folder)
    rate = float(re.search(r"(\d+) images/s", out)[1])
    found = re.search(r"exchanged (\S+) MB a rank, in (\S+) ms", out)
    return rate, *(map(float, found.groups()) if found else (0.0, 0.0))


def curve(args):
    print(f"{os.cpu_count()} cores, {IMAGES} images a rank, one BLAS thread a rank")
    print(f"load {os.getloadavg()[0]:.0f} at the start, best of {args.rounds} rounds in turn")
    print("ranks  images/s  of R times one  MB sent  by formula  ms exchanging  of a step")
    # In turn, so that whatever else the machine does meets all of them.
    rounds = [[train_once(ranks, args.steps) for ranks in args.ranks] for _ in range(args.rounds)]
    best = dict(zip(args.ranks, map(max, zip(*rounds))))
    for ranks, (rate, sent, waited) in best.items():
        share = rate / (ranks * best[args.ranks[0]][0] / args.ranks[0])
        formula = volume(LENET_PARAMETERS, ranks) / 1e6
        step = 1000 * IMAGES * ranks / rate
        print(
            f"{ranks:5}  {rate:8.0f}  {share:14.2f}  {sent:7.3g}  {formula:10.3g}  "
            f"{waited:13.3g}  {waited / step:9.0%}"
        )


def volume(parameters, ranks):
    """Bytes that a rank sends an iteration: its part of the sums, and its sums to all."""
    return 2 * 4 * parameters * (ranks - 1) / ranks


# --- Sharded classes ------------------------------------------------------------------------------


def sharded(args):
    def start(ranks, classes, rows):
        own = ["--classes", classes, "--rows", rows, "--features", args.features]
        own += ["--sample-rate", args.sample_rate, "--rounds", args.rounds]
        command = [sys.executable, "-m", "benchmarks.mpi", "rank", *map(str, own)]
        return [json.loads(line) for line in mpirun(ranks, command, ROOT).splitlines()]

    lines = start(args.ranks, args.classes, args.rows)
    # A rank's work without its waiting: all rows, a share of the classes, nobody else.
    alone = start(1, args.classes // args.ranks, args.rows * args.ranks)[0]["processor"]
    seconds = max(line["seconds"] for line in lines)
    memory, before = (max(line[name] for line in lines) for name in ("memory", "before"))
    sent = max(line["sent"] for line in lines)
    weights = 2 * 4 * args.classes * args.features / args.ranks
    print(
        f"{args.classes} classes of {args.features} features on {args.ranks} ranks, {args.rows} "
        f"rows a rank, sample_rate {args.sample_rate:g}, {os.cpu_count()} cores: "
        f"{1000 * seconds:.0f} ms a step, of which a rank works {1000 * alone:.0f} ms (processor "
        f"time, load {os.getloadavg()[0]:.0f}), {memory / 2**20:.0f} MiB a rank "
        f"({before / 2**20:.0f} before the layer; weights and momentum {weights / 2**20:.0f}), "
        f"{sent / 1e6:.3g} MB sent a rank and step "
        f"(by formula {head_volume(args.rows, args.features, args.ranks) / 1e6:.3g})"
    )


def head_volume(rows, features, ranks):
    """Bytes that a rank sends a step for sharded classes: features, labels, states, gradients."""
    whole = rows * ranks
    gather = (ranks - 1) * rows * (4 * features + 8) + (ranks - 1) * 3 * 8 * whole
    sums = 2 * 8 * (4 * whole + 1) * (ranks - 1) / ranks
    return gather + sums + (ranks - 1) * rows * 4 * features


def rank(args):
    """One of the ranks: times the layer alone."""
    import numpy as np
    from caffe_metric.parallel.ranks import join, leave
    from caffe_metric.parallel.world import find

    import caffe

    world = find()
    ranks = join(world, 120.0) if world.size > 1 else None
    caffe.set_solver_count(world.size)
    caffe.set_solver_rank(world.rank)
    caffe.set_multiprocess(True)
    caffe.set_random_seed(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    text = f"""
    force_backward: true
    layer {{ name: "data" type: "Input" top: "x" top: "y" input_param {{
      shape {{ dim: {args.rows} dim: {args.features} }} shape {{ dim: {args.rows} }} }} }}
    layer {{ name: "loss" type: "Python" bottom: "x" bottom: "y" top: "loss" loss_weight: 1
      python_param {{ module: "caffe_metric.layers" layer: "ShardedMarginSoftmaxLossLayer"
        param_str: "{{num_output: {args.classes}, weight_filler: {{type: gaussian, std: 0.01}}, "
          "normalize_features: true, scale: 64, cosine_margin: 0.35, "
          "sample_rate: {args.sample_rate}}}" }} }}
    """
    with tempfile.NamedTemporaryFile("w", suffix=".prototxt") as file:
        file.write(text)
        file.flush()
        net = caffe.Net(file.name, caffe.TRAIN)
    rng, taken = np.random.default_rng(world.rank), []
    for _ in range(args.rounds + 1):
        net.blobs["x"].data[...] = rng.standard_normal((args.rows, args.features))
        net.blobs["y"].data[...] = rng.integers(0, args.classes, args.rows)
        sent = ranks.sent if ranks else 0
        if ranks:
            ranks.meet()
        began = time.perf_counter(), time.process_time()
        net.forward()
        net.backward()
        taken.append((time.perf_counter() - began[0], time.process_time() - began[1]))
    seconds, processor = (statistics.median(column) for column in zip(*taken[1:]))
    result = {
        "seconds": seconds,
        "processor": processor,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "before": before,
        "sent": ranks.sent - sent if ranks else 0,
    }
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
    leave()
    os._exit(0)


# --- What it predicts -----------------------------------------------------------------------------


def processor_seconds(call, rounds=9):
    """Of one core; what else the machine does hardly counts."""
    call()
    taken = []
    for _ in range(rounds):
        began = time.process_time()
        call()
        taken.append(time.process_time() - began)
    return statistics.median(taken)


def gemm_rate():
    """Products a second of one core, in a product of 512 x 4608 by 4608 x 512."""
    import numpy as np

    a, b = np.ones((512, 4608), np.float32), np.ones((4608, 512), np.float32)
    return 512 * 512 * 4608 / processor_seconds(lambda: a @ b)


def lenet_rate():
    """Images a second of one core, forward and backward."""
    import caffe

    caffe.set_mode_cpu()
    with tempfile.TemporaryDirectory() as folder:
        write_lenet(Path(folder), 1)
        net = caffe.Net(str(Path(folder, "net.prototxt")), caffe.TRAIN)
    return IMAGES / processor_seconds(lambda: (net.forward(), net.backward()))


def predict(args):
    """Seconds of a step: the machine's own work, and the slowest link's."""
    machines, cores = 8, os.cpu_count()
    lenet = cores * lenet_rate()
    core = gemm_rate()
    # Forward, and backward by weights and by features, at the speed of a product.
    resface = cores * core / (3 * RESFACE_PRODUCTS)
    print(
        f"a machine of {cores} cores: LeNet {lenet:.0f} images/s (one core's, times "
        f"{cores}), ResFace-28 {resface:.2f} images/s (a core makes {core / 1e9:.1f} G products/s)"
    )
    print(
        f"LeNet {LENET_PARAMETERS} numbers, ResFace-28 {RESFACE_PARAMETERS} and "
        f"{RESFACE_PRODUCTS / 1e9:.2f} G products an image"
    )
    print("net                   images  MB a step  link Gbit/s  step ms  exchanging  of 8 x one")
    head = head_volume(args.rows, FEATURES, machines)
    cases = [
        ("LeNet", IMAGES * cores, lenet, volume(LENET_PARAMETERS, machines), 0.0),
        ("ResFace-28", args.rows, resface, volume(RESFACE_PARAMETERS, machines), 0.0),
        (
            "ResFace-28, 1M classes",
            args.rows,
            resface,
            volume(RESFACE_PARAMETERS, machines) + head,
            # All ranks' rows by an eighth of the drawn classes, forward twice and backward twice.
            4 * args.sample_rate * 1e6 * FEATURES * args.rows / (cores * core),
        ),
    ]
    for name, images, rate, sent, own in cases:
        for link in (10, 100):
            work = images / rate + own
            wire = 8 * sent / (link * 1e9)
            print(
                f"{name:22}  {images:5}  {sent / 1e6:9.3g}  {link:11}  "
                f"{1000 * (work + wire):7.0f}  {wire / (work + wire):10.1%}  "
                f"{work / (work + wire):10.3f}"
            )


def main():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mpi",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=["curve", "sharded", "predict", "rank"])
    parser.add_argument("--ranks", type=int, nargs="+", default=None)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--classes", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=FEATURES)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--sample-rate", type=float, default=0.1)
    args = parser.parse_args()
    if args.what == "curve":
        args.ranks = args.ranks or [1, 2, 3]
        curve(args)
        return
    args.ranks = (args.ranks or [4])[0]
    os.environ.update(MPI)  # one thread
    {"sharded": sharded, "rank": rank, "predict": predict}[args.what](args)


if __name__ == "__main__":
    main()
