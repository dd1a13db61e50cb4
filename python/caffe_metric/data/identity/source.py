"""Where a data layer's images come from: an LMDB, a list, folders, or an IDX file."""

from __future__ import annotations

import array
import io
import os
from collections.abc import Sequence
from pathlib import Path

import lmdb
import numpy as np
from PIL import Image

from caffe_metric.data import datum
from caffe_metric.data.lmdb_file import record_name
from caffe_metric.data.picture import Picture
from caffe_metric.data.sources import Source, open_source
from caffe_metric.support.errors import UserError


def open_images(path, root=None, picture: Picture | None = None) -> Source:
    """The labelled images of `path`; load(i) gives uint8 [channels, height, width] (BGR).

    A list has lines `FILE LABEL`, or the older `PERSON@FILE LABEL`; its files are relative to
    `root`, or to the list's own folder. Raises UserError.
    """
    path, picture = Path(path), picture or Picture()
    if (path / "data.mdb").exists():
        return _lmdb(path, picture)
    if path.is_file() and path.suffix in ("", ".txt", ".lst", ".list"):
        return _list(path, Path(root) if root else path.parent, picture)
    return open_source(path, picture=picture)


def _list(path, root, picture) -> Source:
    source = open_source(path, picture=picture)
    names = source.names
    return Source(source.labels, names, {}, lambda row: picture.read(_file(root, names[row])))


def _file(root: Path, name: str) -> Path:
    """`person@file` is a file of that name, or the file in the person's folder."""
    file = root / name
    if "@" in name and not file.exists():
        person, _, rest = name.partition("@")
        for candidate in (root / person / rest, root / rest):
            if candidate.exists():
                return candidate
    return file


def _lmdb(path, picture) -> Source:
    try:
        reader = _LmdbReader(path, picture)
    except lmdb.Error as error:
        raise UserError(str(error)) from error
    if not len(reader.labels):
        raise UserError(f"{path}: empty")
    return Source(reader.labels, _Names(reader.keys), {}, reader)


class _Names(Sequence):
    """The names of records, made of their keys when they are asked for."""

    def __init__(self, keys):
        self._keys = keys

    def __len__(self):
        return len(self._keys)

    def __getitem__(self, row):
        if isinstance(row, slice):
            return _Names(self._keys[row])
        return record_name(self._keys[row])


class _LmdbReader:
    """Reads the image of a record by its place.

    A process may open an LMDB once only, and a fork must open it anew: workers keep it open, the
    process that made the reader opens it for each image.
    """

    def __init__(self, path, picture):
        self._path, self._picture, self._home, self._env = str(path), picture, os.getpid(), None
        # Labels are all that is read of a record: a million are read in seconds.
        self.keys, labels = [], array.array("q")
        with self._open() as env, env.begin(buffers=True) as transaction:
            for key, value in transaction.cursor():
                self.keys.append(bytes(key))
                labels.append(datum.label(value))
        self.labels = np.array(labels, np.int64)

    def __call__(self, row):
        if os.getpid() == self._home:
            with self._open() as env:
                return self._read(env, row)
        if self._env is None:
            self._env = self._open()
        return self._read(self._env, row)

    def _open(self):
        return lmdb.open(self._path, readonly=True, lock=False, readahead=False)

    def _read(self, env, row):
        with env.begin() as transaction:
            image, _ = datum.decode(transaction.get(self.keys[row]))
        if isinstance(image, bytes):
            image = _decode(image)
        return self._picture.from_array(image) if image.dtype == np.uint8 else image


def _decode(data: bytes) -> np.ndarray:
    """A picture file as uint8 [channels, height, width], BGR."""
    with Image.open(io.BytesIO(data)) as image:
        array = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    if array.ndim == 2:
        return array[None]
    return np.ascontiguousarray(array[:, :, ::-1].transpose(2, 0, 1))
