"""Counter-based random draws, the same bits as include/caffe_metric/random.hpp.

The number that decides about candidate n of the pair (a, b) is a hash of (key, a, b, n): the
finaliser of SplitMix64 (Steele, Lea & Flood 2014, figure 17), applied twice. To draw k of some
candidates without replacement, take those with the k smallest numbers, lowest index on a tie.
"""

from __future__ import annotations

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
ONE = np.uint64(1)


def mix_bits(z: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64, of an array of uint64 that it may overwrite."""
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def stream_of(key: int, a, b) -> np.ndarray:
    """The streams of numbers of the pairs (a, b), at least one-dimensional, under a key."""
    a, b = np.broadcast_arrays(np.atleast_1d(a), np.atleast_1d(b))
    pair = (a.astype(np.uint64) << np.uint64(32)) | b.astype(np.uint64)
    return mix_bits(np.uint64(key) + GOLDEN * (pair + ONE))


def draw(stream: np.ndarray, n) -> np.ndarray:
    """The numbers of candidates n in their streams; uniform over 64 bits. The two broadcast."""
    return mix_bits(stream + GOLDEN * (np.atleast_1d(n).astype(np.uint64) + ONE))


def coin(key: int, n) -> np.ndarray:
    """True with probability one half, for each n."""
    return draw(stream_of(key, 0, 0), n) >> np.uint64(63) != 0
