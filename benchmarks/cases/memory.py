"""Peak memory of layers beyond the data and diffs of their blobs."""

from __future__ import annotations

from benchmarks.cases import margin_inner_product, margin_softmax_loss, rank_hard, triplet_all
from benchmarks.memory import FLOAT, peak_beyond_blobs
from benchmarks.rows import Point, Result, Row

MIB = 2**20
ROWS, DIM = 256, 64
# The older layers kept five to nine arrays of M×C; ours may keep a few numbers a row, a class and
# a feature, and strips of a fixed size.
BYTES_A_NUMBER, STRIPS = 4 * FLOAT, 8 * MIB


def run(threads: int, quick: bool) -> Result:
    result = Result()
    for classes in (10_000, 100_000) if quick else (10_000, 100_000, 1_000_000):
        _classes(classes, result)
    if not quick:
        _never(1_000_000, result)
    for rows, dim, promise in ((4096, 512, 2.0), (16384, 128, 0.25)):
        body = triplet_all.BODY
        _batch("TripletLoss ALL", "TripletLoss", body, rows, dim, 4, promise, result)
    _batch("RankHardLoss", "RankHardLoss", rank_hard.BODY, 16384, 128, 2, 0.25, result)
    return result


def _row(what, size, peer, beyond, bound, promise) -> Row:
    return Row(
        what=f"{what}, memory",
        size=size,
        peer=peer,
        unit="MiB",
        ours=beyond / MIB,
        theirs=bound / MIB,
        ratio=beyond / bound,
        promise=promise,
    )


def _classes(classes: int, result: Result) -> None:
    """Beyond weights and logits: O(M + C + M K)."""
    shapes = {"features": [ROWS, DIM], "labels": [ROWS]}
    body = margin_inner_product.body(classes)
    beyond = peak_beyond_blobs("MarginInnerProduct", body, shapes, classes)
    bound = BYTES_A_NUMBER * (ROWS + classes + ROWS * DIM) + STRIPS
    what, size = "MarginInnerProduct", f"M = {ROWS}, K = {DIM}, C = {classes}"
    peer = "4 (M + C + M·K) numbers + 8 MiB"
    result.rows.append(_row(what, size, peer, beyond, bound, 1.0))
    result.points.append(
        Point("Memory beyond the blobs", "MarginInnerProduct", "C", classes, "MiB", beyond / MIB)
    )
    array = FLOAT * ROWS * classes
    result.points.append(
        Point("Memory beyond the blobs", "one array M×C", "C", classes, "MiB", array / MIB)
    )


def _never(classes: int, result: Result) -> None:
    """MarginSoftmaxLoss beyond its weights and their diff."""
    shapes = {"features": [ROWS, DIM], "labels": [ROWS]}
    body = margin_softmax_loss.body(classes, "keep_logits: NEVER")
    beyond = peak_beyond_blobs("MarginSoftmaxLoss", body, shapes, classes)
    size = f"M = {ROWS}, K = {DIM}, C = {classes}"
    what = "MarginSoftmaxLoss, logits made twice"
    result.rows.append(_row(what, size, "64 MiB", beyond, 64 * MIB, 1.0))


def _batch(what, kind, body, rows, dim, images, promise, result) -> None:
    """Beyond the features: no more than that part of an array of N×N."""
    shapes = {"features": [rows, dim], "labels": [rows]}
    beyond = peak_beyond_blobs(kind, body, shapes, images=images)
    size = f"N = {rows}, D = {dim}"
    array = FLOAT * rows * rows
    result.rows.append(_row(what, size, "one N×N array", beyond, array, promise))
