"""What `caffe-metric mine` takes for a million images: time and memory, for docs/training.md.

    .venv/bin/python -m benchmarks.mining [--rows 1000000] [--dimension 128]

Synthetic embeddings, ten of each identity: a centre and as much noise, so that neighbours of other
identities are about as near as an image's own. Names hold blanks.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

FOLDER = Path("build/mining")
IMAGES = 10  # of an identity


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=128)
    args = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = FOLDER / f"{args.rows}_{args.dimension}.npz"
    write(file, args.rows, args.dimension)
    command = [sys.executable, "-m", "caffe_metric", "mine", str(file), "-o", str(FOLDER / "t.npy")]
    began = time.monotonic()
    subprocess.run(command, check=True)
    seconds = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"{args.rows} rows of {args.dimension}: {seconds:.0f} s, at most {peak:.2f} GiB")


def write(path, rows, dimension):
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(rows) // IMAGES)
    centres = rng.standard_normal((rows // IMAGES + 1, dimension), np.float32)
    embeddings = centres[labels] + rng.standard_normal((rows, dimension), np.float32)
    names = np.array([f"person {label}/image {row}.jpg" for row, label in enumerate(labels)])
    np.savez(path, embeddings=embeddings, labels=labels, names=names)


if __name__ == "__main__":
    main()
