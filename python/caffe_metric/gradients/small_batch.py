"""A net with a batch just large enough to check gradients on: each difference costs a forward."""

from __future__ import annotations

from pathlib import Path

import lmdb
import numpy as np

from caffe_metric.data import datum
from caffe_metric.data.lists import labelled_lines, read_labelled
from caffe_metric.data.lmdb_file import write_lmdb
from caffe_metric.nets import isolate, phases, roles
from caffe_metric.support.errors import UserError
from caffe_metric.support.text import write_text

ROWS = 8
MOST = 4000  # records that are looked at


def shrink(net, phase: int, folder) -> int:
    """Makes the data layers of a net read a few rows, chosen by class, written to `folder`.

    Returns the rows of a batch; 0 where nothing was changed: the net reads no data that can be
    chosen from, or so little already.
    """
    present = [layer for layer in net.layer if phases.included(layer, phase)]
    group = max([2, *(_group(layer) for layer in present)])
    mixed = any(_is_of_groups(layer) for layer in present)
    rows = -(-ROWS // group) * group
    changed = [
        _shrink_layer(layer, rows, 0 if mixed else group, Path(folder, f"data{number}"))
        for number, layer in enumerate(present)
        if not layer.bottom
    ]
    return rows if any(changed) else 0


def _group(layer) -> int:
    """Rows that a loss counts on to stand together."""
    row = roles.row_of(layer)
    if row is None:
        return 1
    given = roles.parameters(layer)
    if _is_of_groups(layer):
        return 2 + int(given.get("num_negatives", 1))
    return row.group(given)


def _is_of_groups(layer) -> bool:
    """Whether the rows are anchor, positive, negatives, by their places."""
    return roles.kind(layer) == "TripletLoss" and len(layer.bottom) == 1


def _shrink_layer(layer, rows, group, path) -> bool:
    kind = roles.kind(layer)
    try:
        if kind == "Data" and layer.data_param.backend == 1 and layer.data_param.batch_size > rows:
            names, values = _records(layer.data_param.source)
            labels = [datum.decode(value)[1] for value in values]
            chosen = choose(labels, rows, group)
            write_lmdb(path, [(names[row], values[row]) for row in chosen])
            layer.data_param.source, layer.data_param.batch_size = str(path), len(chosen)
            layer.data_param.ClearField("rand_skip")
            return True
        if kind == "ImageData" and layer.image_data_param.batch_size > rows:
            names, labels = read_labelled(layer.image_data_param.source)
            chosen = choose(labels[:MOST], rows, group)
            write_text(path, labelled_lines([names[row] for row in chosen], labels[chosen]))
            layer.image_data_param.source = str(path)
            layer.image_data_param.batch_size = len(chosen)
            layer.image_data_param.ClearField("shuffle")
            layer.image_data_param.ClearField("rand_skip")
            return True
        if kind == "IdentityData":
            return _shrink_identities(layer, rows)
    except (UserError, lmdb.Error, OSError):  # Caffe itself says what is wrong with the source
        return False
    return False


def _shrink_identities(layer, rows) -> bool:
    given = roles.python_parameters(layer)
    if str(given.get("layout", "PK")) in ("PK", "0"):
        images = int(given.get("images") or 4)
        if int(given.get("identities", 8)) * images <= rows:
            return False
        isolate.change(layer, identities=max(2, rows // images))
        return True
    if int(given.get("batch_size", 0)) <= rows:
        return False
    isolate.change(layer, batch_size=rows)
    return True


def _records(source) -> tuple[list[str], list[bytes]]:
    with lmdb.open(str(source), readonly=True, lock=False) as env, env.begin() as transaction:
        found = []
        for key, value in transaction.cursor():
            found.append((key.decode(errors="replace"), bytes(value)))
            if len(found) == MOST:
                break
    return [name for name, _ in found], [value for _, value in found]


def choose(labels, rows: int, group: int) -> list[int]:
    """Numbers of `rows` records: the first ones, if they are groups of one class each, not all one.

    Else such groups, from the classes that have so many, in turns. group 0: the first ones.
    """
    labels = np.asarray(labels)
    first = labels[:rows]
    groups = first[: len(first) // max(group, 1) * max(group, 1)].reshape(-1, max(group, 1))
    if not group or ((groups == groups[:, :1]).all() and len(np.unique(groups)) > 1):
        return list(range(len(first)))
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    groups = [
        found[start : start + group]
        for start in range(0, len(labels), group)
        for found in members
        if start + group <= len(found)
    ]
    chosen = [int(row) for found in groups[: rows // group] for row in found]
    return chosen if len(chosen) == rows else list(range(len(first)))
