"""Data layers of Caffe, set to the place where a training stopped.

IdentityData needs none of this: its batch is a function of the seed and the iteration. Caffe's own
layers begin at the first record or line, and draw crops, mirrors and orders from a generator of
their own, whose state nobody can set: only who reads all that was read before has both again.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

from caffe_metric.nets import blobs, roles

# Images that are read past: some minutes' worth.
MOST_RECORDS = 5_000_000
MOST_FILES = 1_000_000
# Layers without MarginInnerProduct's count that have one of their own.
COUNTING = ("IdentityData", "ShardedMarginSoftmaxLoss")
READERS = ("Data", "ImageData", "HDF5Data", "WindowData", "MemoryData")


ANEW = "; what it crops and mirrors is drawn anew (IdentityData goes on with both)"


@dataclass
class Place:
    """Where a data layer goes on: `batches` to read past, and what the log says of it."""

    layer: str
    batches: int = 0
    text: str = ""


def places(layers, batches: int, ranks: int = 1) -> list[Place]:
    """Where the readers of a net go on that have given so many batches, by pycaffe's layers.

    ranks: as many read the same, by turns: of Data and HDF5Data a record each.
    """
    return [_place(layer, batches, ranks) for layer in layers if layer.type in READERS and batches]


def rotate_lists(layers, batches: int, folder, rank: int = 0, ranks: int = 1) -> None:
    """Points ImageData layers at lists that begin where the layer stopped; changes the layers.

    Not those that read past what was read before. Several ranks have the lines by turns.
    """
    for number, layer in enumerate(layers):
        if layer.type != "ImageData":
            continue
        start = batches * ranks * layer.image_data_param.batch_size
        if _shuffles(layer) or (_draws(layer) and _reads_past(layer, batches)):
            start = 0
        if not start and ranks == 1:
            continue
        param = layer.image_data_param
        lines = Path(param.source).read_text().splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):
            lines[-1] += "\n"
        # All turns, until the first line is this rank's first again.
        count = len(lines) // math.gcd(len(lines), ranks) if lines else 0
        if _shuffles(layer):
            count = -(-(len(lines) - rank) // ranks)
        own = [lines[(start + turn * ranks + rank) % len(lines)] for turn in range(count)]
        rotated = Path(folder, f"list{number}.txt")
        rotated.write_text("".join(own))
        param.source = str(rotated)


def give_up_blobs(net, model="") -> None:
    """IdentityData without its blob where a layer of the other phase, or of the model of the solver
    state to go on from, has its name and has none.

    Caffe aborts where two layers of one name differ in their blobs. Changes the net.
    """
    names = [layer.name for layer in net.layer if not roles.counts_batches(layer)]
    if model:
        names += [name for name, shapes in blobs.shapes(model).items() if not shapes]
    for layer in net.layer:
        if roles.counts_batches(layer) and layer.name in names:
            given = {**roles.python_parameters(layer), "persist_iteration": False}
            layer.python_param.param_str = json.dumps(given)
            del layer.param[:]


def _shuffles(layer) -> bool:
    own = layer.image_data_param
    return bool(own.shuffle or own.rand_skip or layer.hdf5_data_param.shuffle)


def _place(layer, batches, ranks) -> Place:
    name, again = f"layer '{layer.name}' ({layer.type})", "starts at its beginning again"
    past = f"; reads past {batches * _batch_size(layer)} images for it"
    if layer.type == "Data":
        return _place_of_data(layer, batches, name, ranks)
    if layer.type == "ImageData" and not _shuffles(layer):
        if not _draws(layer):
            return Place(layer.name, 0, f"{name} goes on at its line")
        if not _reads_past(layer, batches):
            return Place(layer.name, 0, f"{name} goes on at its line{ANEW}")
        return Place(layer.name, batches, f"{name} goes on at its line, crops and mirrors{past}")
    if _reads_past(layer, batches):
        return Place(layer.name, batches, f"{name} goes on where it was{past}")
    how = ", in another order" if _shuffles(layer) else ""
    return Place(layer.name, 0, f"{name} cannot be set: it {again}{how}")


def _place_of_data(layer, batches, name, ranks) -> Place:
    size, source = _batch_size(layer) * ranks, layer.data_param.source
    records, read = _records(source), batches * size
    if _draws(layer) and _reads_past(layer, batches):
        where = f"at record {read % records} of {records}" if records else "at its record"
        text = (
            f"{name} goes on {where}, with its crops and mirrors; reads past {read} images for it"
        )
        return Place(layer.name, batches, text)
    anew = ANEW if _draws(layer) else ""
    if records:
        past = batches % (records // math.gcd(records, size))
        if past * size > MOST_RECORDS:
            past = read % records // size
            return Place(
                layer.name, past, f"{name} goes on less than a batch before its record{anew}"
            )
        text = f"{name} goes on at record {read % records} of {records}"
        return Place(layer.name, past, text + (anew if past < batches else ""))
    if read <= MOST_RECORDS:
        return Place(layer.name, batches, f"{name} goes on at its record")
    text = f"{name}: the number of its records is not known: it starts at its beginning again"
    return Place(layer.name, 0, text)


def _draws(layer) -> bool:
    """Whether it crops or mirrors at random."""
    transform = layer.transform_param
    return bool(transform.mirror or transform.crop_size)


def _batch_size(layer) -> int:
    own = {
        "Data": layer.data_param,
        "ImageData": layer.image_data_param,
        "HDF5Data": layer.hdf5_data_param,
        "WindowData": layer.window_data_param,
    }
    return max(1, own[layer.type].batch_size) if layer.type in own else 1


def _reads_past(layer, batches) -> bool:
    """Whether a layer that reads again all that it has read is as it was, in some minutes."""
    read = batches * _batch_size(layer)
    if layer.type == "HDF5Data":  # it shuffles by C's rand(), which others call, too
        return not layer.hdf5_data_param.shuffle and read <= MOST_RECORDS
    if layer.type in ("ImageData", "WindowData"):
        return read <= MOST_FILES
    return layer.type == "Data" and read <= MOST_RECORDS


def _records(source) -> int:
    """Of an LMDB; 0 where it is none."""
    if not os.path.exists(os.path.join(source, "data.mdb")):
        return 0
    import lmdb

    with lmdb.open(source, readonly=True, lock=False) as environment:
        return environment.stat()["entries"]


def shift_counts(layers, batches: int, given: int) -> None:
    """Layers that keep no count of iterations in a blob begin with one; changes the layers.

    given: the batches of all ranks, which IdentityData counts.
    """
    for layer in layers:
        row = roles.row_of(layer)
        counts = row is not None and (row.counts or row.type in COUNTING)
        persists = roles.parameters(layer).get("persist_iteration", True)
        if layer.python_param.layer == "DataLayer" or not (row and row.state_blobs):
            persists = False
        if not counts or not batches or persists:
            continue
        if layer.type == "Python":
            own = roles.python_parameters(layer)
            passed = given if row.type == "IdentityData" else batches
            own["iteration"] = int(own.get("iteration", 0)) + passed
            layer.python_param.param_str = json.dumps(own)
        else:
            layer.margin_inner_product_param.iteration += batches
