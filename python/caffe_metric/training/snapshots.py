"""Snapshots that are whole, or do not exist.

A snapshot is PREFIX_iter_N.caffemodel, PREFIX_iter_N.solverstate and PREFIX_iter_N.json. All are
written in a folder aside, flushed to the disk, and renamed; the record (.json) last. It holds the
sizes and checksums of the other two, and of what layers keep in files of their own: without it, or
where they differ, there is no snapshot.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from caffe_metric.nets import blobs
from caffe_metric.support.errors import UserError
from caffe_metric.support.files import sync

# So long a training waits for the processes of one that was killed just now.
LOCK_SECONDS = 10.0


@dataclass
class Snapshot:
    """A snapshot on the disk: its record, and the folder in which it stands."""

    folder: Path
    record: dict
    _files: dict = field(default_factory=dict)

    @property
    def iteration(self) -> int:
        return self.record["iteration"]

    def file(self, suffix: str) -> Path:
        """The path of the .caffemodel or the .solverstate."""
        return self.folder / next(name for name in self.record["files"] if suffix in name)

    def more(self) -> list[Path]:
        """The files of layers that keep their weights themselves."""
        return [self.folder / name for name in self.record.get("more", {})]

    def fault(self) -> str | None:
        """What is wrong with it, None where it is whole."""
        for name, wanted in {**self.record["files"], **self.record.get("more", {})}.items():
            try:
                found = describe(self.folder / name)
            except OSError as error:
                return f"{name}: {error.strerror}"
            if found["size"] != wanted["size"]:
                return f"{name} has {found['size']} bytes, {wanted['size']} were written"
            if found != wanted:
                return f"{name} is not what was written (checksum)"
        return None


def describe(path) -> dict:
    """Size and checksum of a file, as a record holds them."""
    digest, size = hashlib.sha256(), 0
    with Path(path).open("rb") as file:
        for part in iter(lambda: file.read(1 << 20), b""):
            digest.update(part)
            size += len(part)
    return {"size": size, "sha256": digest.hexdigest()}


def find(prefix) -> list[Snapshot]:
    """The snapshots of a prefix that have a record, the newest training's first, newest first.

    A training that began anew under the same prefix counts its iterations from 0: what it wrote is
    newer than what an older one left, whatever the numbers say.
    """
    prefix = Path(prefix)
    pattern = re.compile(re.escape(prefix.name) + r"_iter_(\d+)\.json")
    found = []
    for path in prefix.parent.iterdir() if prefix.parent.is_dir() else []:
        if match := pattern.fullmatch(path.name):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                record = json.loads(path.read_text())
                if record["iteration"] == int(match[1]) and len(record["files"]) == 2:
                    found.append(Snapshot(path.parent, record))
    written = {}
    for one in found:
        run, when = one.record.get("run"), one.record.get("time", 0)
        written[run] = max(when, written.get(run, 0))
    return sorted(found, key=lambda one: (written[one.record.get("run")], one.iteration))[::-1]


def newest_whole(prefix, say=lambda text: None) -> Snapshot:
    """The newest snapshot that is whole. Raises UserError; says which ones were passed over."""
    for one in find(prefix):
        fault = one.fault()
        if fault is None:
            return one
        say(f"passed over the snapshot of iteration {one.iteration}: {fault}")
    states = sorted(Path(prefix).parent.glob(f"{Path(prefix).name}_iter_*.solverstate*"))
    more = f"; {states[-1]} has none, --snapshot takes it as it is" if states else ""
    raise UserError(f"no snapshot {prefix}_iter_N with a record (.json) to resume from{more}")


class Prefix:
    """The right to write snapshots under a prefix; one process at a time holds it.

    Use it as a context manager. `aside` is a folder on the same disk, empty, for what is not whole
    yet; it goes away at the end.
    """

    def __init__(self, prefix):
        self.prefix = Path(prefix)
        self.aside = self.prefix.parent / f".{self.prefix.name}.snapshot"
        self.descriptor = -1

    def __enter__(self):
        deadline = time.monotonic() + LOCK_SECONDS
        while not self._locked():
            if time.monotonic() > deadline:
                raise UserError(f"{self.prefix}: another training writes snapshots of this name")
            time.sleep(0.1)
        for path in self.aside.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.aside, ignore_errors=True)
        os.close(self.descriptor)

    def _locked(self):
        try:
            self.aside.mkdir(parents=True, exist_ok=True)
            # A file system where nothing can be written says so now, not after hours.
            os.utime(self.aside)
        except OSError as error:
            raise UserError(f"{self.prefix}: {error.strerror}") from error
        # The other training's end takes the folder away: what is locked then is nobody's.
        with contextlib.suppress(OSError):
            self.descriptor = os.open(self.aside, os.O_RDONLY)
            with contextlib.suppress(OSError):
                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(self.descriptor), self.aside.stat()):
                    return True
            os.close(self.descriptor)
        return False


def write(solver, prefix, aside, iteration, record, size=0, more=()) -> list[str]:
    """Writes a snapshot of a pycaffe solver whose own snapshot_prefix is in `aside`.

    record: what the .json holds besides. size: bytes that it will take, tried before Caffe, which
    ends the process where the disk is full. more: files in `aside` that belong to it. Returns the
    three paths. Raises OSError; what was there before is still there then.
    """
    prefix, aside = Path(prefix), Path(aside)
    reserve(aside / "reserved", size)
    solver.snapshot()
    stem = f"{prefix.name}_iter_{iteration}"
    model, state = sorted(aside.glob(f"{stem}.*"))
    with blobs.open_model(model) as opened:  # reads it: a torn file raises
        opened.shapes()
    # Caffe notes where the model stands: not where it was written.
    relinked = aside / f"relinked{''.join(state.suffixes[-2:])}"
    with blobs.open_state(state) as opened:
        opened.model = f"{prefix.parent / model.name}"
        opened.save(relinked)
    relinked.replace(state)
    files = {path.name: describe(path) for path in (model, state)}
    further = {"more": {path.name: describe(path) for path in more}} if more else {}
    for path in (model, state, *more):
        sync(path)
    target = prefix.parent / f"{stem}.json"
    # From here to the record's rename there is no snapshot of this iteration.
    target.unlink(missing_ok=True)
    for path in (model, state, *more):
        path.replace(prefix.parent / path.name)
    sync(prefix.parent)
    noted = aside / target.name
    whole = {"iteration": iteration, "time": time.time(), **record, "files": files, **further}
    noted.write_text(json.dumps(whole, indent=1) + "\n")
    sync(noted)
    noted.replace(target)
    sync(prefix.parent)
    return [str(prefix.parent / name) for name in (*sorted(files), target.name)]


def reserve(path, size):
    """Raises OSError where a file of so many bytes cannot be written; leaves none."""
    if not size or not hasattr(os, "posix_fallocate"):
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        os.posix_fallocate(descriptor, 0, size)
    finally:
        os.close(descriptor)
        path.unlink()
