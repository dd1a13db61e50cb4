"""Labels of a data layer in the order the net will see them, where its source can be read."""

from __future__ import annotations

import functools
from pathlib import Path

from caffe_metric.data.lists import read_labelled
from caffe_metric.nets import roles
from caffe_metric.support.errors import UserError

MOST = 200_000  # records that are looked at


def labels(layer) -> list[int] | None:
    """The labels of the layer's source, in order; None where they cannot be known."""
    if layer.type == "Data" and layer.data_param.backend == 1:
        return _lmdb(layer.data_param.source)
    if layer.type == "ImageData":
        return _image_list(layer.image_data_param.source)
    return None


def shuffled(layer) -> str:
    """What breaks the order of the source's records, or ""."""
    if layer.type == "ImageData" and layer.image_data_param.shuffle:
        return "shuffle: true"
    field = {"Data": "data_param", "ImageData": "image_data_param"}.get(layer.type)
    if field and getattr(layer, field).rand_skip:
        return f"rand_skip: {getattr(layer, field).rand_skip}"
    return ""


def batch_size(layer) -> int:
    field = {"Data": "data_param", "ImageData": "image_data_param"}.get(roles.kind(layer))
    return getattr(layer, field).batch_size if field else 0


@functools.lru_cache(maxsize=4)
def _lmdb(path: str) -> list[int] | None:
    if not (Path(path) / "data.mdb").is_file():
        return None
    try:
        import lmdb
        from caffe.proto import caffe_pb2
    except ImportError:
        return None
    found = []
    try:
        environment = lmdb.open(path, readonly=True, lock=False, subdir=True)
        with environment, environment.begin() as transaction:
            for _, value in transaction.cursor():
                found.append(caffe_pb2.Datum.FromString(value).label)
                if len(found) == MOST:
                    break
    except lmdb.Error:
        return None
    return found


@functools.lru_cache(maxsize=4)
def _image_list(path: str) -> list[int] | None:
    """Lines of `file label`."""
    try:
        return read_labelled(path)[1].tolist()
    except UserError:
        return None
