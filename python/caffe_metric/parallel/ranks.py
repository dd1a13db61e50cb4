"""What the ranks exchange. Every wait has an end, and every sum is made in the order of the ranks.

All of it stands on one primitive, `exchange`: each rank sends an array to each other one and
receives one. So a rank that does not answer is known by its number, and a sum has the same bits
whatever MPI does inside.
"""

from __future__ import annotations

import os
import pickle
import socket
import time

import numpy as np

from caffe_metric.support.errors import UserError

# Numbers that are summed at a time: 16 MiB of float32.
PART = 1 << 22
# So long a rank only gives way to others while it waits; then it sleeps between two looks.
AWAKE_SECONDS = 0.2
SLEEP_SECONDS = 0.001
TAGS = 1 << 15
give_way = getattr(os, "sched_yield", lambda: time.sleep(0))


class Lost(UserError):
    """Ranks that did not answer in time."""


class Ranks:
    """The ranks of a training. `communicator`: mpi4py's, or None for a rank that is alone.

    timeout: seconds that a rank waits for another; it may be changed. doing: what messages say that
    it was doing. lost: whether one did not answer. waited, sent: seconds spent in exchanges, and
    bytes sent, so far.
    """

    def __init__(self, communicator=None, timeout: float = 600.0):
        self._communicator, self.timeout = communicator, timeout
        self.rank = communicator.rank if communicator else 0
        self.size = communicator.size if communicator else 1
        self.doing = "starting"
        self.lost, self.waited, self.sent, self._tag = False, 0.0, 0, 0
        self.hosts = [socket.gethostname()]
        self.hosts = self.gather_objects(self.hosts[0])

    def name(self, rank: int) -> str:
        return f"rank {rank} on {self.hosts[rank] if rank < len(self.hosts) else 'its machine'}"

    def exchange(self, sends, receives) -> None:
        """Sends sends[k] to rank k, and receives into receives[k] what it sent here.

        None in both places: nothing goes that way. Arrays are C-contiguous. Raises Lost.
        """
        if sends[self.rank] is not None and receives[self.rank] is not None:
            receives[self.rank][...] = sends[self.rank]
        if self.size == 1:
            return
        began = time.monotonic()
        self._tag = (self._tag + 1) % TAGS
        coming, going = {}, {}
        for step in range(1, self.size):
            source, target = (self.rank - step) % self.size, (self.rank + step) % self.size
            if receives[source] is not None:
                into = receives[source].view(np.uint8).reshape(-1)
                coming[source] = self._communicator.Irecv(into, source, self._tag)
            if sends[target] is not None:
                out = np.ascontiguousarray(sends[target]).view(np.uint8).reshape(-1)
                self.sent += out.nbytes
                going[target] = self._communicator.Isend(out, target, self._tag)
        self._wait(coming, going, began)
        self.waited += time.monotonic() - began

    def _wait(self, coming, going, began):
        while True:
            coming = {rank: request for rank, request in coming.items() if not request.Test()}
            going = {rank: request for rank, request in going.items() if not request.Test()}
            if not coming and not going:
                return
            seconds = time.monotonic() - began
            if seconds > self.timeout:
                self.lost = True
                names = ", ".join(map(self.name, coming or going))
                raise Lost(
                    f"{names} did not answer for {self.timeout:g} s ({self.doing}): it hangs, or "
                    "works longer than --timeout"
                )
            if seconds < AWAKE_SECONDS:
                give_way()
            else:
                time.sleep(SLEEP_SECONDS)

    # --- Arrays -----------------------------------------------------------------------------------

    def gather(self, array) -> np.ndarray:
        """[size, *shape]: the arrays of all ranks, which have one shape and type."""
        array = np.asarray(array, order="C")
        found = np.empty((self.size, *array.shape), array.dtype)
        self.exchange([array.reshape(-1)] * self.size, list(found.reshape(self.size, -1)))
        return found

    def gather_rows(self, array) -> list[np.ndarray]:
        """The arrays of all ranks, whose first axes may differ."""
        array = np.ascontiguousarray(array)
        counts = self.gather(np.array([len(array)]))[:, 0]
        found = [np.empty((count, *array.shape[1:]), array.dtype) for count in counts]
        self.exchange([array] * self.size, found)
        return found

    def sum_own(self, array) -> np.ndarray:
        """Of [size, ...], the sum over all ranks of the part of this rank."""
        parts = np.ascontiguousarray(array).reshape(self.size, -1)
        found = np.empty_like(parts)
        self.exchange(list(parts), list(found))
        return _sum(found).reshape(array.shape[1:])

    def add(self, array) -> None:
        """Makes a vector the sum over all ranks, in place.

        Each rank sums a part of it and gives the sum to all: 2 (size - 1) / size of its bytes are
        sent, and no rank has two sums.
        """
        for start in range(0, len(array) if self.size > 1 else 0, PART):
            part = array[start : start + PART]
            ends = np.linspace(0, len(part), self.size + 1).astype(int)
            pieces = [part[begin:end] for begin, end in zip(ends, ends[1:])]
            mine = pieces[self.rank]
            found = np.empty((self.size, len(mine)), part.dtype)
            self.exchange(pieces, list(found))
            mine[...] = _sum(found)
            into = [None if rank == self.rank else piece for rank, piece in enumerate(pieces)]
            self.exchange([mine] * self.size, into)

    def share(self, array, root: int = 0) -> None:
        """Gives all ranks the array of one, in place."""
        flat = array.reshape(-1)
        if not np.shares_memory(flat, array):
            raise ValueError("a shared array must be contiguous")
        for start in range(0, len(flat), PART):
            part = flat[start : start + PART]
            sends, receives = [None] * self.size, [None] * self.size
            if self.rank == root:
                sends = [part] * self.size
            else:
                receives[root] = part
            self.exchange(sends, receives)

    def carry(self, array, into, source: int, target: int) -> None:
        """Brings the array of one rank into that of another; all ranks call it."""
        sends, receives = [None] * self.size, [None] * self.size
        if self.rank == source:
            sends[target] = array.reshape(-1)
        if self.rank == target:
            receives[source] = into.reshape(-1)
        self.exchange(sends, receives)

    # --- Anything else ----------------------------------------------------------------------------

    def gather_objects(self, value) -> list:
        rows = self.gather_rows(np.frombuffer(pickle.dumps(value), np.uint8))
        return [pickle.loads(row.tobytes()) for row in rows]

    def share_object(self, value=None, root: int = 0):
        """The value of the root, on all ranks."""
        given = pickle.dumps(value) if self.rank == root else b""
        size = self.gather(np.array([len(given)]))[root, 0]
        data = np.empty(size, np.uint8)
        if self.rank == root:
            data[...] = np.frombuffer(given, np.uint8)
        self.share(data, root)
        return pickle.loads(data.tobytes())

    def meet(self) -> None:
        """Waits for all ranks."""
        self.gather(np.zeros(1))


def _sum(rows):
    """In the order of the ranks."""
    total = rows[0].copy()
    for row in rows[1:]:
        total += row
    return total


_here = None


def here() -> Ranks:
    """The ranks of this process's training; one that is alone where none has joined."""
    global _here
    if _here is None:
        _here = Ranks()
    return _here


def join(world, timeout: float) -> Ranks:
    """Starts MPI. Raises UserError where it sees other ranks than the environment tells."""
    global _here
    # Open MPI would print a stack trace where Caffe ends the process with its own words.
    os.environ.setdefault("OMPI_MCA_opal_signal", "")
    try:
        import mpi4py

        mpi4py.rc.threads, mpi4py.rc.finalize = False, False
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise UserError(f"mpi4py: {error}") from error
    found = MPI.COMM_WORLD
    if found.size != world.size:
        raise UserError(
            f"{world.size} ranks were started, but MPI sees {found.size}: mpirun and mpi4py are of "
            f"two MPIs (mpi4py's is {MPI.Get_library_version().split(',')[0]})"
        )
    _here = Ranks(found, timeout)
    return _here


def leave() -> None:
    """Ends MPI, once all ranks are there."""
    if _here is not None and _here.size > 1:
        from mpi4py import MPI

        _here.meet()
        MPI.Finalize()
