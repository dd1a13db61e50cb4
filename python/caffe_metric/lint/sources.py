"""Labels of a data layer in the order the net will see them, where its source can be read."""

from __future__ import annotations

import functools
import json
from pathlib import Path

from caffe_metric.data.lists import read_labelled
from caffe_metric.nets import roles
from caffe_metric.support.errors import UserError

SUMMARY = "summary.json"  # of `convert`, in the database's folder
MOST = 200_000  # records that are looked at


def labels(layer) -> list[int] | None:
    """The labels of the layer's source, in order; None where they cannot be known."""
    if layer.type == "Data" and layer.data_param.backend == 1:
        return _lmdb(layer.data_param.source)
    if layer.type == "ImageData":
        return _image_list(layer.image_data_param.source)
    return None


def source(layer) -> str:
    """What a layer reads: a database, a list, a folder; "" where it reads none."""
    field = _field(layer)
    if field:
        return getattr(layer, field).source
    if roles.kind(layer) == "IdentityData":
        return str(roles.python_parameters(layer).get("source", ""))
    return ""


def is_there(layer) -> bool:
    """Whether Caffe would find it, run from the current folder."""
    path = Path(source(layer))
    if layer.type == "Data" and layer.data_param.backend == 1:
        return (path / "data.mdb").is_file()
    return path.is_file() if layer.type == "ImageData" else path.exists()


def crop_of(layer) -> int:
    return getattr(getattr(layer, "transform_param", None), "crop_size", 0)


def image(layer) -> tuple | None:
    """(channels, height, width) of the images before a crop, numbers that differ None."""
    if layer.type == "Data" and layer.data_param.backend == 1:
        shape = _first_record(layer.data_param.source)
        given = getattr(layer, "transform_param", None)
        if shape is None or given is None:
            return shape
        return (3 if given.force_color else 1 if given.force_gray else shape[0], *shape[1:])
    given = layer.image_data_param if layer.type == "ImageData" else None
    if given is None or not hasattr(given, "is_color"):
        return None
    channels = 3 if given.is_color else 1
    return channels, given.new_height or None, given.new_width or None


def order(path: str) -> dict | None:
    """What `convert` noted of a database's order; None where it made none."""
    try:
        found = json.loads((Path(path) / SUMMARY).read_text(encoding="utf-8"))
        return {"order": str(found["order"]), "batch": max(1, int(found["batch"]))}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _field(layer) -> str | None:
    return {"Data": "data_param", "ImageData": "image_data_param"}.get(layer.type)


def shuffled(layer) -> str:
    """What breaks the order of the source's records, or ""."""
    if layer.type == "ImageData" and layer.image_data_param.shuffle:
        return "shuffle: true"
    field = _field(layer)
    if field and getattr(layer, field).rand_skip:
        return f"rand_skip: {getattr(layer, field).rand_skip}"
    return ""


def batch_size(layer) -> int:
    field = _field(layer)
    return getattr(layer, field).batch_size if field else 0


def _once(function):
    """Keeps the last few results; a file that changes is read again."""
    kept = functools.lru_cache(maxsize=4)(lambda path, stamp: function(path))

    @functools.wraps(function)
    def call(path: str):
        file = Path(path, "data.mdb") if Path(path).is_dir() else Path(path)
        try:
            found = file.stat()
        except OSError:
            return None
        return kept(path, (found.st_mtime_ns, found.st_size, found.st_ino))

    return call


@_once
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


@_once
def _first_record(path: str) -> tuple | None:
    from caffe_metric.data import datum
    from caffe_metric.data.lmdb_file import read_lmdb
    from caffe_metric.data.picture import decode

    try:
        data, _ = datum.decode(bytes(next(read_lmdb(path))[1]))
        if not isinstance(data, bytes):
            return data.shape
        shown, _ = decode(data)
        return len(shown.getbands()), shown.height, shown.width
    except (ImportError, StopIteration, UserError, ValueError):
        return None


@_once
def _image_list(path: str) -> list[int] | None:
    """Lines of `file label`."""
    try:
        return read_labelled(path)[1].tolist()
    except UserError:
        return None
