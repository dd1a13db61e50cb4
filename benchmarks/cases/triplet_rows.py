"""TripletLoss of three bottoms, forward and backward, against PyTorch's TripletMarginLoss."""

from __future__ import annotations

from benchmarks.layers import OneLayer, unit_rows
from benchmarks.peers import torch_triplets
from benchmarks.rows import Result, Row, timed_row
from benchmarks.timing import interleave

ROWS, DIM = 1024, 512
PROMISE = 0.5
MARGIN = 1.0
PEER = "PyTorch TripletMarginLoss"


def bottoms(rows: int, dim: int) -> dict:
    names = ("anchors", "positives", "negatives")
    return {name: unit_rows(rows, dim, seed) for seed, name in enumerate(names)}


def body(distance: str) -> str:
    return f"triplet_loss_param {{ margin: {MARGIN:g} distance: {distance} }}"


def run(threads: int, quick: bool) -> Result:
    result = Result()
    for distance in ("L2", "SQUARED_L2"):
        what, size = f"TripletLoss {distance}", f"3 bottoms, N = {ROWS}, D = {DIM}"
        ours = OneLayer("TripletLoss", body(distance), bottoms(ROWS, DIM)).contender("ours")
        promise = PROMISE if threads == 1 else None
        try:
            peer = torch_triplets(PEER, threads, MARGIN, *bottoms(ROWS, DIM).values())
        except ImportError as error:
            result.rows.append(
                Row(what, size, PEER, promise=promise, threads=threads, missing=str(error))
            )
            continue
        times = interleave([ours, peer], threads, 1)
        result.rows.append(timed_row(what, size, times, "ours", PEER, promise, threads))
    return result
