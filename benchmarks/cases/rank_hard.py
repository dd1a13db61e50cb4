"""RankHardLoss, forward and backward, against a matrix product of all rows with all rows."""

from __future__ import annotations

from benchmarks import blas, older
from benchmarks.layers import OneLayer, labels_of, unit_rows
from benchmarks.rows import Result, timed_row
from benchmarks.timing import Contender, interleave

DIM = 512
PROMISES = {512: 2.5, 2048: 1.5}
ON_ALL = {2048: 1.3}  # cores of an idle machine
BODY = "rank_param { neg_num: 4 pair_size: 2 hard_ratio: 0.5 rand_ratio: 0.5 margin: 0.5 }"
OLDER = {"pair_size": 2, "neg_num": 4, "hard_ratio": 0.5, "rand_ratio": 0.5, "margin": 0.5}


def layer(rows: int, dim: int) -> OneLayer:
    bottoms = {"features": unit_rows(rows, dim), "labels": labels_of(rows, 2)}
    return OneLayer("RankHardLoss", BODY, bottoms)


def run(threads: int, quick: bool) -> Result:
    result = Result()
    for rows, promise in PROMISES.items():
        contenders = [
            layer(rows, DIM).contender("ours"),
            Contender("one N×N×D product", blas.product(rows, rows, DIM)),
        ]
        if threads == 1 and not quick:
            call = older.rank_hard(unit_rows(rows, DIM), labels_of(rows, 2), **OLDER)
            contenders.append(Contender("older formulation", call, rounds=3))
        times = interleave(contenders, threads, 1 if quick else 4)
        size = f"N = {rows}, D = {DIM}"
        for peer in list(times)[1:]:
            kept = None
            if peer.startswith("one"):
                kept = promise if threads == 1 else ON_ALL.get(rows)
            result.rows.append(timed_row("RankHardLoss", size, times, "ours", peer, kept, threads))
    return result
