"""The Python layers against the C++ layers: with caffe_metric._core, and with NumPy alone."""

from __future__ import annotations

import importlib.util

from benchmarks.cases import margin_inner_product, rank_hard, triplet_all, triplet_rows
from benchmarks.layers import OneLayer, labels_of, python_layer, unit_rows
from benchmarks.rows import Result, Row, timed_row
from benchmarks.timing import interleave

PROMISES = {"core": 1.5, "numpy": 5.0}
PEER = "the C++ layer"


def _pairs(rows: int):
    given = {"features": unit_rows(rows, rank_hard.DIM), "labels": labels_of(rows, 2)}
    yaml = "neg_num: 4, pair_size: 2, hard_ratio: 0.5, rand_ratio: 0.5, margin: 0.5"
    return "RankHardLoss", rank_hard.BODY, yaml, given, f"N = {rows}"


def _classes(classes: int):
    given = margin_inner_product.batch(margin_inner_product.ROWS, margin_inner_product.DIM, classes)
    yaml = (
        f"num_output: {classes}, type: QUADRUPLE, base: {margin_inner_product.LAMBDA:g}, "
        "weight_filler: {type: gaussian, std: 0.1}"
    )
    body = margin_inner_product.body(classes)
    return "MarginInnerProduct", body, yaml, given, f"C = {classes}"


def _rows(distance: str):
    given = triplet_rows.bottoms(triplet_rows.ROWS, triplet_rows.DIM)
    yaml = f"margin: {triplet_rows.MARGIN:g}, distance: {distance}"
    body = triplet_rows.body(distance)
    return "TripletLoss", body, yaml, given, f"3 bottoms, {distance}, N = {triplet_rows.ROWS}"


def _all(rows: int):
    images = triplet_all.IMAGES
    given = {"features": unit_rows(rows, triplet_all.DIM), "labels": labels_of(rows, images)}
    yaml = f"mining: ALL, margin: {triplet_all.MARGIN:g}"
    return "TripletLoss", triplet_all.BODY, yaml, given, f"ALL, N = {rows}"


def run(threads: int, quick: bool) -> Result:
    settings = [(_pairs, 512), (_pairs, 2048), (_classes, 10572), (_rows, "SQUARED_L2")]
    settings += [(_rows, "L2"), (_all, 512), (_all, 2048)]
    if not quick:
        settings.insert(3, (_classes, 85742))
    result = Result()
    for describe, value in settings:
        result.rows += _compare(*describe(value), threads, 1 if quick else 3)
    return result


def _compare(kind, body, yaml, bottoms, size, threads, seconds) -> list[Row]:
    layers = {PEER: OneLayer(kind, body, bottoms)}
    rows = []
    for backend, promise in PROMISES.items():
        if backend == "core" and importlib.util.find_spec("caffe_metric._core") is None:
            missing = "caffe_metric._core is not installed"
            rows.append(
                Row(f"Python {kind}, {backend}", size, PEER, promise=promise, missing=missing)
            )
        else:
            layers[backend] = OneLayer(*python_layer(kind, yaml, backend), bottoms)
    if kind == "MarginInnerProduct":
        for layer in layers.values():
            margin_inner_product.set_top_diff(layer)
    contenders = [
        layer.contender(
            name,
            prepare=margin_inner_product.unscale(layer) if layer.net.params else lambda: None,
        )
        for name, layer in layers.items()
    ]
    times = interleave(contenders, threads, seconds, least=4)
    for backend in list(layers)[1:]:
        rows.append(
            timed_row(
                f"Python {kind}, {backend}", size, times, backend, PEER, PROMISES[backend], threads
            )
        )
    return rows
