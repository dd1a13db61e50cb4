"""The processes that mpirun started together, as their environment tells it, before any MPI."""

from __future__ import annotations

import importlib.util
import os
import re
import socket
from dataclasses import dataclass

from caffe_metric.support.errors import UserError

# Who starts, and the variables of a process's rank, of how many there are, and on its machine.
STARTERS = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"),  # Open MPI
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS"),  # MPICH, Intel MPI, srun --mpi=pmi2
    ("PMIX_RANK", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE"),  # srun --mpi=pmix
)


# Ranks may need so long for their start, however little they may for an iteration.
START_SECONDS = 120.0


@dataclass(frozen=True)
class World:
    """rank: of this process, of `size`; `local` of them are on this machine."""

    rank: int = 0
    size: int = 1
    local: int = 1

    @property
    def name(self) -> str:
        return f"rank {self.rank} of {self.size} on {socket.gethostname()}"

    def threads(self) -> int:
        """BLAS threads that a rank may use: its share of the processors it may run on."""
        mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        return max(1, min(mine, (os.cpu_count() or 1) // self.local))


def find(environment=os.environ) -> World:
    """The world of this process. Raises UserError where it has several ranks and no mpi4py."""
    for names in STARTERS:
        rank, size, local = (_number(environment.get(name)) for name in names)
        if rank is not None and size is not None and size > 1:
            if importlib.util.find_spec("mpi4py") is None:
                raise UserError(
                    f"{size} ranks were started, but mpi4py is not installed: "
                    "pip install 'caffe-metric[mpi]'"
                )
            return World(rank, size, max(1, local or 1))
    return World()


def _number(text):
    """The first number of a text such as "2(x3)"; None where there is none."""
    found = re.match(r"\d+", text or "")
    return int(found[0]) if found else None
