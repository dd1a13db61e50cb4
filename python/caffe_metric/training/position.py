"""Data layers of Caffe, set to the place where a training stopped.

IdentityData needs none of this: its batch is a function of the seed and the iteration. Of Caffe's
own layers Data always begins at the first record, and ImageData at the first line.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

from caffe_metric.nets import roles

# Reading past more records than this takes too long to be worth it.
MOST_RECORDS = 5_000_000
READERS = ("Data", "ImageData", "HDF5Data", "WindowData", "MemoryData")


@dataclass
class Place:
    """Where a data layer goes on: `batches` to read past, and what the log says of it."""

    layer: str
    batches: int = 0
    text: str = ""


def places(layers, batches: int) -> list[Place]:
    """Where the readers of a net go on that have given so many batches, by pycaffe's layers."""
    return [_place(layer, batches) for layer in layers if layer.type in READERS and batches]


def rotate_lists(layers, batches: int, folder) -> None:
    """Points ImageData layers at lists that begin where the layer stopped; changes the layers."""
    for number, layer in enumerate(layers):
        if layer.type != "ImageData" or not batches or _shuffles(layer):
            continue
        param = layer.image_data_param
        lines = Path(param.source).read_text().splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):
            lines[-1] += "\n"
        start = batches * param.batch_size % max(1, len(lines))
        rotated = Path(folder, f"list{number}.txt")
        rotated.write_text("".join(lines[start:] + lines[:start]))
        param.source = str(rotated)


def give_up_blobs(net) -> None:
    """IdentityData without its blob where a layer of the other phase has its name and has none.

    Caffe aborts where two layers of one name differ in their blobs. Changes the net.
    """
    names = [layer.name for layer in net.layer if not roles.counts_batches(layer)]
    for layer in net.layer:
        if roles.counts_batches(layer) and layer.name in names:
            given = {**roles.python_parameters(layer), "persist_iteration": False}
            layer.python_param.param_str = json.dumps(given)
            del layer.param[:]


def _shuffles(layer) -> bool:
    return layer.image_data_param.shuffle or layer.image_data_param.rand_skip > 0


def _place(layer, batches) -> Place:
    name, again = f"layer '{layer.name}' ({layer.type})", "starts at its beginning again"
    if layer.type == "ImageData":
        if _shuffles(layer):
            return Place(layer.name, 0, f"{name} shuffles by itself: it {again}, in another order")
        return Place(layer.name, 0, f"{name} goes on at its line{_draws(layer)}")
    if layer.type != "Data":
        return Place(layer.name, 0, f"{name} cannot be set: it {again}")
    size = max(1, layer.data_param.batch_size)
    records = _records(layer.data_param.source)
    if records:
        past = batches % (records // math.gcd(records, size))
        if past * size > MOST_RECORDS:
            past = (batches * size % records) // size
            text = f"{name} goes on less than a batch before its record"
        else:
            text = f"{name} goes on at record {batches * size % records} of {records}"
    elif batches * size <= MOST_RECORDS:
        past, text = batches, f"{name} goes on at its record"
    else:
        return Place(layer.name, 0, f"{name}: the number of its records is not known: it {again}")
    draws = _draws(layer) if past < batches else ""
    return Place(layer.name, past, text + draws)


def _draws(layer) -> str:
    transform = layer.transform_param
    if not transform.mirror and not transform.crop_size:
        return ""
    return "; what it crops and mirrors is drawn anew (IdentityData goes on with both)"


def _records(source) -> int:
    """Of an LMDB; 0 where it is none."""
    if not os.path.exists(os.path.join(source, "data.mdb")):
        return 0
    import lmdb

    with lmdb.open(source, readonly=True, lock=False) as environment:
        return environment.stat()["entries"]


def shift_counts(layers, batches: int) -> None:
    """Layers that keep no count of iterations in a blob begin with one; changes the layers."""
    for layer in layers:
        row = roles.row_of(layer)
        counts = row is not None and (row.counts or row.type == "IdentityData")
        persists = roles.parameters(layer).get("persist_iteration", True)
        if layer.python_param.layer == "DataLayer":
            persists = False
        if not counts or not batches or persists:
            continue
        if layer.type == "Python":
            given = roles.python_parameters(layer)
            given["iteration"] = int(given.get("iteration", 0)) + batches
            layer.python_param.param_str = json.dumps(given)
        else:
            layer.margin_inner_product_param.iteration += batches
