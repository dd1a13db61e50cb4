"""The memory of `caffe-metric extract`, of as many images as you like: a number of docs/faces.md.

    .venv/bin/python -m benchmarks.extraction [--images 1000000] [--way deployed]

Images of 28 x 28 in an LMDB, through a convolution and a product to 64 numbers, by a training net
(`net`: Caffe's Data layer reads) or a deployed folder (`deployed`: our reader does, as it does of
lists and folders). Prints, each tenth of the way, what extract and the processes that it started
hold beyond files that are mapped, every page once (Pss_Anon and Pss_Shmem of /proc).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from caffe_metric.data import datum
from caffe_metric.data.lmdb_file import write_lmdb

NET = """
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { scale: 0.00390625 }
  data_param { source: "DATA" batch_size: 100 backend: LMDB } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 5 stride: 4 weight_filler { type: "xavier" } } }
layer { name: "embedding" type: "InnerProduct" bottom: "conv" top: "embedding"
  inner_product_param { num_output: 64 weight_filler { type: "xavier" } } }
"""
PAUSE = 0.2  # seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000000)
    parser.add_argument("--way", choices=("net", "deployed"), default="deployed")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), args.images, args.way)


def measure(folder, images, way):
    data, model = folder / "data.lmdb", folder / "w.caffemodel"
    rng = np.random.default_rng(0)
    some = rng.integers(0, 256, (1000, 1, 28, 28)).astype(np.uint8)
    write_lmdb(
        data, ((f"{k % 20}.png", datum.encode(some[k % 1000], k // 20)) for k in range(images))
    )
    net = folder / "net.prototxt"
    net.write_text(NET.replace("DATA", str(data)))
    save_weights(net, model)
    chosen = ["--net", str(net), "--weights", str(model), "--blob", "embedding"]
    if way == "deployed":
        run("deploy", *chosen, "-o", str(folder / "deployed"))
        chosen = ["--net", str(folder / "deployed")]
    out = folder / "f.npz"
    started, held = time.monotonic(), []
    command = [sys.executable, "-m", "caffe_metric", "extract", *chosen]
    with subprocess.Popen([*command, "--data", str(data), "-o", str(out)]) as process:
        while process.poll() is None:
            held.append(tree(process.pid))
            time.sleep(PAUSE)
    if process.returncode:
        raise SystemExit(process.returncode)
    seconds = time.monotonic() - started
    curve = [held[k * (len(held) - 1) // 10] >> 20 for k in range(11)]
    with np.load(out) as found:
        assert found["embeddings"].shape == (images, 64)
    print(f"{images} images, {way}: {seconds:.0f} s, peak {max(held) >> 20} MiB")
    print(f"  each tenth of the way, MiB: {' '.join(map(str, curve))}")
    print(f"  the file: {out.stat().st_size >> 20} MiB")


def save_weights(net, model):
    script = (
        "import json, sys, caffe; net, model = json.loads(sys.argv[1]); "
        "caffe.Net(net, caffe.TEST).save(model)"
    )
    names = json.dumps([str(net), str(model)])
    subprocess.run([sys.executable, "-c", script, names], check=True, stderr=subprocess.DEVNULL)


def run(*arguments):
    command = [sys.executable, "-m", "caffe_metric", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def tree(pid) -> int:
    """Bytes that a process and all that it started hold for themselves."""
    total = 0
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        for field in ("Pss_Anon", "Pss_Shmem"):
            total += 1024 * int(re.search(rf"^{field}:\s*(\d+) kB", text, re.MULTILINE)[1])
    for task in Path("/proc").glob(f"{pid}/task/*/children"):
        with contextlib.suppress(OSError):
            total += sum(tree(int(child)) for child in task.read_text().split())
    return total


if __name__ == "__main__":
    main()
