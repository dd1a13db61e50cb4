"""LMDB as Caffe reads and writes it: key `00000012_name`, value a serialised Datum."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

import lmdb

from caffe_metric.support.errors import UserError
from caffe_metric.support.files import replacing_folder
from caffe_metric.support.text import write_text

_MAP_SIZE = 1 << 40  # address space, not disk; the same as Caffe's own
_COMMIT_EVERY = 5000
_OUR_KEY = re.compile(r"^\d{8,}_(?=.)", re.DOTALL)  # the number, also in Caffe's own databases


def write_lmdb(path, records, force=False, notes=None):
    """Writes records of (name, value) as an LMDB folder, whole or not at all.

    notes: {file name: text} of small text files that go into the folder. Returns the number of
    records. Raises UserError where `path` exists and force is false.
    """
    path = Path(path)
    if path.is_dir() and any(path.iterdir()) and not (path / "data.mdb").exists():
        raise UserError(f"{path}: a folder that is no LMDB; it is not replaced")
    with replacing_folder(path, force) as folder:
        try:
            count = _fill(folder, records)
        except lmdb.Error as error:
            raise UserError(f"{path}: {error}") from error
        for name, text in (notes or {}).items():
            write_text(folder / name, text)
    return count


def _fill(folder, records):
    count = 0
    records = iter(records)
    # One sync at the end: a folder that is not finished is thrown away anyhow.
    with lmdb.open(str(folder), map_size=_MAP_SIZE, sync=False, metasync=False) as env:
        while chunk := list(itertools.islice(records, _COMMIT_EVERY)):
            with env.begin(write=True) as transaction:
                for name, value in chunk:
                    # 511 bytes are LMDB's limit for a key.
                    key = os.fsencode(f"{count:08d}_{name}")[:511]
                    transaction.put(key, value, append=True)
                    count += 1
        env.sync(True)
    (folder / "lock.mdb").unlink(missing_ok=True)
    return count


def read_lmdb(path):
    """Yields (name, value) of every record, in Caffe's order. Raises UserError."""
    return _read(path, lambda transaction: transaction.cursor())


def lmdb_names(path):
    """The names of all records, in Caffe's order. Raises UserError."""
    return [name for name, _ in _read(path, _keys)]


def _keys(transaction):
    return ((key, None) for key in transaction.cursor().iternext(values=False))


def _read(path, records):
    if not (Path(path) / "data.mdb").exists():
        raise UserError(f"{path}: no LMDB (data.mdb) there")
    try:
        with lmdb.open(str(path), readonly=True, lock=False) as env, env.begin() as transaction:
            for key, value in records(transaction):
                yield _OUR_KEY.sub("", os.fsdecode(bytes(key))), value
    except lmdb.Error as error:
        raise UserError(f"{path}: {error}") from error
