"""Times contenders in turn, so that a change of the machine's speed meets all of them.

With one thread the time is that of the processor, which other programs disturb least; with more
it is that of the clock on the wall, and a product on all cores comes before each call, as the
layers before do in a training: a core that has slept takes milliseconds to wake.

What a contender frees stays with the process. Else the C library gives it back at some later free,
which may be another contender's: after PyTorch's tensors that was 4 to 8 ms of the next layer.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks import blas

# Of glibc's malloc.h, and how they are set: nothing is given back but blocks of this size, which is
# the greatest that glibc takes.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
NEVER, LARGEST_BLOCK = 2**31 - 1, 32 * 2**20


@dataclass(frozen=True)
class Contender:
    """Something to time.

    call: what is timed.
    prepare: what comes before each call, and is not timed.
    rounds: at most this number of rounds, for a slow one; 0 is no limit.
    """

    name: str
    call: Callable[[], object]
    prepare: Callable[[], object] = lambda: None
    rounds: int = 0


def interleave(
    contenders: list[Contender],
    threads: int,
    seconds: float,
    least: int = 5,
    most: int = 100,
) -> dict[str, np.ndarray]:
    """Seconds of every call, by name: round i is element i.

    The first round warms caches up and is thrown away. Rounds go on for about `seconds`, but
    `least` to `most` of them.
    """
    _keep_freed_memory()
    clock, wake = time.process_time, _nothing
    if threads > 1:
        clock, wake = time.perf_counter, blas.product(1024, 1024, 512)
    taken: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for contender in contenders:
        _time(contender, clock, wake)
    began = time.perf_counter()
    done = 0
    while done < least or (done < most and time.perf_counter() - began < seconds):
        for contender in contenders:
            if not contender.rounds or done < contender.rounds:
                taken[contender.name].append(_time(contender, clock, wake))
        done += 1
    return {name: np.array(values) for name, values in taken.items()}


def _keep_freed_memory() -> None:
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(M_TRIM_THRESHOLD, NEVER)
        library.mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK)


def _nothing() -> None:
    pass


def _time(contender: Contender, clock: Callable[[], float], wake: Callable[[], None]) -> float:
    contender.prepare()
    wake()
    began = clock()
    contender.call()
    return clock() - began
