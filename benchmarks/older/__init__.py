"""The older layers' formulations, as peers: written for the benchmark in plain loops, in C++."""

from __future__ import annotations

import ctypes
import functools
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).resolve().parent
BUILD = SOURCE.parent.parent / "build" / "bench" / "older"


class BuildError(Exception):
    """Says why the library does not compile."""


def build() -> None:
    """Compiles the library with CMake."""
    for command in (["cmake", "-S", SOURCE, "-B", BUILD], ["cmake", "--build", BUILD]):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            text = (done.stderr + done.stdout).splitlines()
            first = next((line for line in text if "rror" in line), "cmake failed")
            raise BuildError(f"the older formulations do not compile: {first.strip()}")


@functools.lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(str(BUILD / "libolder.so"))


def _address(array: np.ndarray) -> ctypes.c_void_p:
    if array.dtype != np.float32 or not array.flags.c_contiguous:
        raise ValueError("needs contiguous float32")
    return array.ctypes.data_as(ctypes.c_void_p)


def rank_hard(x, labels, pair_size, neg_num, hard_ratio, rand_ratio, margin) -> Callable:
    """A call that computes loss and gradient, and returns the loss."""
    rows, dim = x.shape
    similarities = np.zeros((rows, rows), np.float32)
    gradient = np.zeros_like(x)
    function = _library().older_rank_hard
    function.restype = ctypes.c_float
    numbers = [ctypes.c_float(value) for value in (hard_ratio, rand_ratio, margin)]
    arrays = [x, labels, similarities, gradient]

    def call() -> float:
        return function(rows, dim, pair_size, neg_num, *numbers, *map(_address, arrays))

    return call


def margin_inner_product(x, labels, weights, top_diff, decay) -> Callable:
    """A call that computes logits and gradients with lambda = decay; returns the logits."""
    rows, dim = x.shape
    classes = len(weights)
    logits = np.zeros((rows, classes), np.float32)
    gradients = [np.zeros_like(x), np.zeros_like(weights)]
    arrays = [x, labels, weights, top_diff, logits, *gradients]

    def call() -> np.ndarray:
        _library().older_margin_inner_product(
            rows, classes, dim, ctypes.c_float(decay), *map(_address, arrays)
        )
        return logits

    return call
