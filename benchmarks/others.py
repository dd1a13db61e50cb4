"""Other work on the machine: processes that multiply matrices, a core each."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

WORK = """
import numpy as np
a = np.ones((512, 512), np.float32)
print("at work", flush=True)
while True:
    a @ a
"""


@contextlib.contextmanager
def at_work(count: int) -> Iterator[None]:
    """`count` such processes, while the context lasts."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([sys.executable, "-c", WORK], stdout=subprocess.PIPE, env=environment)
        for _ in range(count)
    ]
    try:
        for process in processes:
            process.stdout.readline()
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()
