"""Images of a source to an LMDB for Caffe's Data layer; the order decides what a batch holds."""

from __future__ import annotations

import numpy as np

from caffe_metric.data import datum
from caffe_metric.data.lists import check_labels
from caffe_metric.data.lmdb_file import write_lmdb
from caffe_metric.data.order import ORDERS
from caffe_metric.support.errors import UserError
from caffe_metric.support.progress import Progress


def convert(
    source,
    out,
    order="source",
    epochs=1,
    identities=None,
    images=None,
    seed=0,
    force=False,
    progress=None,
):
    """Writes a Source to an LMDB folder and returns the number of records.

    order: a name in dataset.order.ORDERS; identities (P) and images (K) are its numbers.
    The folder also gets labels.txt, a line `label name` for each class.
    """
    check_labels(source.labels, source.names)
    numbers = {}
    if identities is not None:
        numbers["identities"] = identities
    if images is not None:
        numbers["images"] = images
    rng = np.random.default_rng(seed)
    rows = np.concatenate(list(ORDERS[order](source.labels, rng, epochs=epochs, **numbers)))
    classes = "".join(
        f"{label} {source.class_names.get(label, label)}\n" for label in np.unique(source.labels)
    )
    records = _records(source, rows, progress or Progress(), str(out))
    return write_lmdb(out, records, force, {"labels.txt": classes})


def _records(source, rows, progress, text):
    shape = None
    with progress:
        for row in progress.each(rows, text):
            image = source.load(row)
            if not isinstance(image, bytes):
                shape = shape or image.shape
                if image.shape != shape:
                    raise UserError(
                        f"{source.names[row]}: {_size(image.shape)}, the first image is "
                        f"{_size(shape)}; --size makes them equal"
                    )
            yield source.names[row], datum.encode(image, int(source.labels[row]))


def _size(shape):
    return f"{shape[2]}x{shape[1]} with {shape[0]} channels"


def keep_classes(source, exclude=(), include=(), relabel=False, limit=None):
    """The Source without or with only some classes, perhaps with labels 0 ... C-1.

    limit: so many images of each class, the first ones. Raises UserError where nothing is left or
    a class to be taken out is not there.
    """
    present = set(source.labels.tolist())
    missing = sorted((set(exclude) | set(include)) - present)
    if missing:
        raise UserError(f"no image has label {', '.join(map(str, missing))}")
    wanted = np.ones(len(source.labels), bool)
    if include:
        wanted &= np.isin(source.labels, list(include))
    wanted &= ~np.isin(source.labels, list(exclude))
    rows = np.flatnonzero(wanted)
    if limit is not None and len(rows):
        kept = [rows[source.labels[rows] == label][:limit] for label in present]
        rows = np.sort(np.concatenate(kept))
    if not len(rows):
        raise UserError("no images are left")
    source = source.select(rows)
    return source.relabel() if relabel else source
