"""LMDB as Caffe reads and writes it: key `00000012_name`, value a serialised Datum."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
from pathlib import Path

import lmdb

from caffe_metric.support.errors import UserError
from caffe_metric.support.files import replacing_folder, resuming_folder
from caffe_metric.support.text import write_text

# The file tells its readers how much address space to take: no more than it needs.
_MAP_SIZE = 1 << 26  # at first, in bytes
_COMMIT_EVERY = 5000
_OUR_KEY = re.compile(r"^\d{8,}_(?=.)", re.DOTALL)  # the number, also in Caffe's own databases


def _check_replaceable(path):
    if path.is_dir() and any(path.iterdir()) and not (path / "data.mdb").exists():
        raise UserError(f"{path}: a folder that is no LMDB; it is not replaced")


def write_lmdb(path, records, force=False, notes=None):
    """Writes records of (name, value) as an LMDB folder, whole or not at all.

    notes: {file name: text} of small text files that go into the folder. Returns the number of
    records. Raises UserError where `path` exists and force is false.
    """
    path = Path(path)
    _check_replaceable(path)
    with replacing_folder(path, force) as folder:
        try:
            count = _fill(folder, records)
        except lmdb.Error as error:
            raise UserError(f"{path}: {error}") from error
        for name, text in (notes or {}).items():
            write_text(folder / name, text)
    return count


class Resumed:
    """An LMDB that grows by groups of records; what was committed before a kill stays.

    groups: how many groups it holds. notes: what `add` was told about each of them.
    """

    def __init__(self, folder):
        self._log = Path(folder, ".progress")
        # One sync at the end; a killed process leaves the system's memory of the file whole.
        self._env = lmdb.open(str(folder), map_size=_MAP_SIZE, sync=False, metasync=False)
        self.count = self._env.stat()["entries"]
        self.groups, self.notes = 0, []
        if self.count and not self._read_log():
            raise lmdb.Error("the records do not fit their log")

    def _read_log(self):
        """Each line was written before its records were committed: the last may be ahead."""
        if not self._log.exists():
            return False
        kept = []
        for line in self._log.read_text(encoding="utf-8").splitlines():
            try:
                found = json.loads(line)
            except ValueError:  # half a line
                break
            kept.append(line)
            self.notes += found["notes"]
            if found["records"] == self.count:
                self.groups = found["groups"]
                self._log.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
                return True
        return False

    def add(self, groups) -> None:
        """Commits some groups, each (records, notes), in one transaction."""
        notes = [note for _, told in groups for note in told]
        records = [record for found, _ in groups for record in found]
        state = {
            "records": self.count + len(records),
            "groups": self.groups + len(groups),
            "notes": notes,
        }
        with self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(state) + "\n")
        _commit(self._env, self.count, records)
        self.count += len(records)
        self.groups += len(groups)
        self.notes += notes

    def close(self) -> None:
        """Flushes, and takes away what is only of use while it grows."""
        self._env.sync(True)
        self._env.close()
        self._log.unlink(missing_ok=True)
        (self._log.parent / "lock.mdb").unlink(missing_ok=True)


@contextlib.contextmanager
def writing_resumably(path, groups, fingerprint, force=False):
    """Writes an LMDB folder; if it is killed, a later call goes on where this one was.

    groups(first) yields (records, notes) from group number `first` on: records of (name, value),
    notes as JSON holds them. fingerprint: what the records depend on. Yields (folder, number of
    records, notes) before the folder gets its name, for more files. Raises UserError.
    """
    path = Path(path)
    _check_replaceable(path)
    with resuming_folder(path, fingerprint, force) as folder:
        try:
            try:
                database = Resumed(folder)
            except lmdb.Error:  # begun, but not in order
                shutil.rmtree(folder)
                folder.mkdir()
                database = Resumed(folder)
            pending, size = [], 0
            for group in groups(database.groups):
                pending.append(group)
                size += len(group[0])
                if size >= _COMMIT_EVERY:
                    database.add(pending)
                    pending, size = [], 0
            database.add(pending)
            database.close()
        except lmdb.Error as error:
            raise UserError(f"{path}: {error}") from error
        yield folder, database.count, database.notes


def _commit(env, first, records):
    """Writes records, numbered from `first` on; the map doubles until they fit, as in Caffe."""
    while True:
        try:
            with env.begin(write=True) as transaction:
                for number, (name, value) in enumerate(records, first):
                    _put(transaction, number, name, value)
            return
        except lmdb.MapFullError:
            env.set_mapsize(2 * env.info()["map_size"])


def _put(transaction, number, name, value):
    # 511 bytes are LMDB's limit for a key.
    transaction.put(os.fsencode(f"{number:08d}_{name}")[:511], value, append=True)


def _fill(folder, records):
    count = 0
    records = iter(records)
    # One sync at the end: a folder that is not finished is thrown away anyhow.
    with lmdb.open(str(folder), map_size=_MAP_SIZE, sync=False, metasync=False) as env:
        while chunk := list(itertools.islice(records, _COMMIT_EVERY)):
            _commit(env, count, chunk)
            count += len(chunk)
        env.sync(True)
    (folder / "lock.mdb").unlink(missing_ok=True)
    return count


def record_name(key):
    """The name in the key of a record; the whole key where it holds none."""
    return _OUR_KEY.sub("", os.fsdecode(bytes(key)))


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
                yield record_name(key), value
    except lmdb.Error as error:
        raise UserError(f"{path}: {error}") from error
