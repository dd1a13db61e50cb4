"""Decoding in worker processes, some batches ahead of the net.

Processes, not threads: while Caffe computes it holds the interpreter lock, and a thread of Python
would wait. Each batch is decoded by one worker into a slot of memory that both processes see.
"""

from __future__ import annotations

import mmap
import multiprocessing
import signal
import warnings
from collections import deque

import numpy as np

# Ctrl-C goes to the whole group, and `caffe train` takes a snapshot then: it needs its data.
OUTLIVED = (signal.SIGINT, signal.SIGHUP)
ENDED = "a decoding process has ended"


class Decoder:
    """Decodes batches ahead. `next` gives them one after another, from the one that `seek` names.

    job      job(number) gives (rows, places, mirrors, labels) of a batch
    load     load(row) gives uint8 [channels, height, width]
    shape    [rows, channels, height, width] of a batch
    workers  processes; 0 decodes in this one, when a batch is wanted
    """

    def __init__(self, job, load, transform, shape, workers: int, ahead: int = 2):
        self._job, self._load, self._transform = job, load, transform
        self._workers, self._waiting, self._number = [], deque(), 0
        slots = max(1, workers * ahead)
        memory = mmap.mmap(-1, max(1, slots * int(np.prod(shape)) * 4))
        self._slots = np.frombuffer(memory, np.float32, slots * int(np.prod(shape)))
        self._slots = self._slots.reshape(slots, *shape)
        context = multiprocessing.get_context("fork")
        for _ in range(workers):
            self._workers.append(self._start(context))

    def seek(self, number: int) -> None:
        """The batch that `next` gives; what was decoded ahead is thrown away."""
        for _, worker, _ in self._waiting:
            worker.recv()
        self._waiting.clear()
        self._number = number
        for slot in range(len(self._slots) if self._workers else 0):
            self._submit(slot)

    def next(self, out) -> np.ndarray:
        """Writes the next batch to `out` and returns its labels. Raises ValueError."""
        if not self._workers:
            rows, places, mirrors, labels = self._job(self._number)
            self._number += 1
            error = _decode(self._load, self._transform, rows, places, mirrors, out)
            if error:
                raise ValueError(error)
            return labels
        slot, worker, labels = self._waiting.popleft()
        try:
            error = worker.recv()
        except (EOFError, OSError):
            raise ValueError(ENDED) from None
        if error:
            raise ValueError(error)
        out[...] = self._slots[slot]
        self._submit(slot)
        return labels

    def close(self) -> None:
        """Ends the workers."""
        for connection in self._workers:
            connection.close()
        self._workers, self._waiting = [], deque()

    def __del__(self):
        self.close()

    def _start(self, context):
        here, there = context.Pipe()
        # A worker must not hold the ends of its elders: they end when this process does.
        inherited = [*self._workers, here]
        process = context.Process(
            target=_work,
            args=(there, inherited, self._slots, self._load, self._transform),
            daemon=True,
        )
        with warnings.catch_warnings():
            # The worker decodes pictures and touches no lock that another thread may hold.
            warnings.simplefilter("ignore", DeprecationWarning)
            # What comes before the worker ignores it waits.
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, OUTLIVED)
            try:
                process.start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        there.close()
        return here

    def _submit(self, slot):
        rows, places, mirrors, labels = self._job(self._number)
        self._number += 1
        worker = self._workers[slot % len(self._workers)]
        try:
            worker.send((slot, rows, places, mirrors))
        except OSError:
            raise ValueError(ENDED) from None
        self._waiting.append((slot, worker, labels))


def _work(connection, inherited, slots, load, transform):
    """The loop of a worker; ends when the other end is closed."""
    for number in OUTLIVED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, OUTLIVED)
    for other in inherited:
        other.close()
    try:
        while True:
            slot, rows, places, mirrors = connection.recv()
            connection.send(_decode(load, transform, rows, places, mirrors, slots[slot]))
    except (EOFError, OSError):
        return


def _decode(load, transform, rows, places, mirrors, out) -> str | None:
    """Fills a batch. Returns what went wrong."""
    for k, row in enumerate(rows):
        try:
            transform(load(row), places[k], mirrors[k], out[k])
        except Exception as error:  # goes to the layer, in the process of the net
            return f"image {row}: {error}"
    return None
