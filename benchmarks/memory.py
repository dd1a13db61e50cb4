"""Peak memory of a layer, beyond its blobs, in a process of its own.

    python -m benchmarks.memory '{"kind": "Norm", "body": "", "shapes": {"features": [64, 32]}}'

prints the bytes by which the process grew over a forward and a backward pass, less the data and
diffs of all blobs of the net.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLOAT = 4  # bytes


def peak_beyond_blobs(
    kind: str, body: str, shapes: dict[str, list[int]], classes: int = 0, images: int = 4
) -> int:
    """Bytes. `classes`: labels are drawn from so many, else rows have `images` a class."""
    request = {"kind": kind, "body": body, "shapes": shapes, "classes": classes, "images": images}
    command = [sys.executable, "-m", "benchmarks.memory", json.dumps(request)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{kind} {shapes}: {(done.stderr.strip() or 'ended').splitlines()[-1]}")
    return int(done.stdout)


def _status(field: str) -> int:
    """A size of this process, in bytes."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(re.search(rf"^{field}:\s*(\d+) kB", text, re.MULTILINE)[1])


def _measure(kind, body, shapes, classes, images) -> int:
    import numpy as np

    from benchmarks import blas
    from benchmarks.layers import OneLayer, labels_of

    blas.product(512, 2048, 512)()  # the buffers that BLAS keeps
    rng = np.random.default_rng(3)
    before = _status("VmRSS")
    layer = OneLayer(
        kind, body, {name: np.broadcast_to(0, shape) for name, shape in shapes.items()}
    )
    net = layer.net
    for name, shape in shapes.items():
        if name != "labels":
            rng.standard_normal(dtype=np.float32, out=net.blobs[name].data)
        elif classes:
            net.blobs[name].data[...] = rng.integers(0, classes, shape)
        else:
            net.blobs[name].data[...] = labels_of(shape[0], images)
    for _ in range(2):
        layer.both()
    blobs = [*net.blobs.values(), *(blob for blobs in net.params.values() for blob in blobs)]
    held = 0
    for blob in blobs:
        # Touched, so that all of it counts, whether the layer used it or not.
        blob.data[...] += 0
        blob.diff[...] += 0
        held += 2 * FLOAT * blob.count
    return _status("VmHWM") - before - held


if __name__ == "__main__":
    print(_measure(**json.loads(sys.argv[1])))
