"""Starts of several ranks on this machine, for the tests of parallel/."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from caffe_metric.data import datum
from caffe_metric.data.lmdb_file import write_lmdb
from caffe_metric.nets import blobs

TRAIN = [sys.executable, "-m", "caffe_metric", "train", "--solver", "solver.prototxt"]
ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def need_mpi():
    """Skips where several ranks cannot be started."""
    if shutil.which("mpirun") is None:
        pytest.skip("mpirun is not installed: ./run test")
    if importlib.util.find_spec("mpi4py") is None:
        pytest.skip("mpi4py is not installed: pip install 'caffe-metric[mpi]'")


def start(ranks, folder, *command, options=(), **more):
    """Popen of so many ranks of a command; of one without mpirun."""
    run = list(command)
    if ranks > 1:
        run = ["mpirun", "--oversubscribe", "-n", str(ranks), *options, *run]
    return subprocess.Popen(
        run,
        cwd=folder,
        env={**os.environ, **ENVIRONMENT, **more},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process, timeout=120):
    """(status, stdout, stderr)."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode, out, err


def train(ranks, folder, *arguments, **more):
    return finish(start(ranks, folder, *TRAIN, *arguments, **more))


def write_faces(folder, count=96, classes=8):
    """faces.lmdb: images of `classes` identities, each two in a row of one."""
    rng = np.random.default_rng(5)
    labels = np.arange(count) // 2 % classes
    centres = rng.integers(0, 160, (classes, 1, 6, 6))
    images = centres[labels] + rng.integers(0, 90, (count, 1, 6, 6))
    records = [
        ("", datum.encode(image.astype(np.uint8), int(label)))
        for image, label in zip(images, labels)
    ]
    write_lmdb(Path(folder, "faces.lmdb"), records)


def weights(folder, iteration, prefix="net"):
    """{layer/place: array} of a snapshot's model, the histories of its solver among them."""
    stem = Path(folder, f"{prefix}_iter_{iteration}")
    with blobs.open_model(f"{stem}.caffemodel") as model:
        found = {
            f"{name}/{place}": np.array(array)
            for name, kept in model.arrays().items()
            for place, array in enumerate(kept)
        }
    with blobs.open_state(f"{stem}.solverstate") as state:
        for place, blob in enumerate(state.history()):
            found[f"history {place}"] = np.array(blobs._array(blob))
    return found
