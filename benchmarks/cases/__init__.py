"""What is measured: a module a case, with `run(threads, quick) -> Result`.

`quick` is for a look while developing: fewer rounds, and the smaller sizes only.
"""

# In the order of the table. Cases of ONE_THREAD say nothing about threads.
from __future__ import annotations

CASES = (
    "rank_hard",
    "margin_inner_product",
    "margin_softmax_loss",
    "solver_step",
    "triplet_rows",
    "triplet_all",
    "batch_losses",
    "python_layers",
    "memory",
    "growth",
    "build",
)
ALL_THREADS = (
    "rank_hard",
    "margin_inner_product",
    "margin_softmax_loss",
    "triplet_rows",
    "triplet_all",
    "batch_losses",
)
