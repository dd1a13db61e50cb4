"""Changes of many files that happen together or not at all.

1. All new files are written, whole, to .caffe-metric/next/, and synced.
2. The list of steps is renamed to .caffe-metric/journal.json: from here on the change counts.
3. The steps are made: renames and removals, each of which may be made twice.
4. The journal is removed, then .caffe-metric/next/.

A process that dies before 2 leaves the tree as it was; one that dies after it leaves a journal,
which whoever comes next carries out (`recover`). Steps 2 to 4 are made by a process of their own,
so that killing the command in between does not even need that.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from caffe_metric.patch.record import FOLDER
from caffe_metric.support.errors import UserError
from caffe_metric.support.files import sync

JOURNAL = f"{FOLDER}/journal.json"
NEXT = f"{FOLDER}/next"
STAGED_JOURNAL = f"{NEXT}/journal.json"
PATIENCE = 30  # seconds to wait for another patcher


@dataclass(frozen=True)
class Write:
    """A file's new content and permission bits (0: those of any new file)."""

    path: str
    data: bytes
    mode: int = 0


@dataclass(frozen=True)
class Remove:
    path: str


def reached(step: str) -> None:
    """Called between any two steps; tests kill the process here."""


@contextlib.contextmanager
def locked(root: Path):
    """Keeps a second patcher out of the tree; waits a while for one that is at work."""
    handle = os.open(root, os.O_RDONLY)
    try:
        _lock(handle, root)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, root: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise UserError(f"{root}: another caffe-metric patch is at work here") from None
            time.sleep(0.02)
        except OSError:
            return  # a file system without locks


def recover(root: Path) -> bool:
    """Ends what a killed process began. True where a change was carried out."""
    journal = root / JOURNAL
    found = journal.exists()
    try:
        if found:
            _finish(root)
        elif (root / NEXT).exists():
            _tidy(root)
    except OSError as error:
        raise UserError(f"{root}: an unfinished patch cannot be ended: {error}") from error
    return found


def commit(root: Path, writes: list[Write], removals: list[Remove], folders: list[str]) -> None:
    """Makes all changes; `folders` are removed afterwards where they are empty."""
    try:
        steps = _stage(root, writes, removals, folders)
        reached("staged")
        _write(root / STAGED_JOURNAL, json.dumps(steps).encode(), 0o644)
        sync(root / STAGED_JOURNAL)
        sync(root / NEXT)
        reached("journal written")
        with _own_process() as here:
            if here:
                _finish(root)
        _finish(root)  # in case that process was killed
    except BaseException as error:
        outcome = "the next call of caffe-metric patch goes on"
        if not (root / JOURNAL).exists():
            _tidy(root)
            outcome = "nothing was changed"
        if isinstance(error, OSError):
            reason = f"{error.filename or root}: {error.strerror}; {outcome}"
            raise UserError(reason) from error
        raise


def _stage(root: Path, writes: list[Write], removals: list[Remove], folders: list[str]) -> dict:
    for path in [w.path for w in writes] + [r.path for r in removals]:
        _check_writable(root, path)
    steps = {"put": [], "remove": [r.path for r in removals], "folders": folders}
    os.makedirs(root / NEXT, exist_ok=True)
    for number, write in enumerate(writes):
        staged = f"{NEXT}/{number}"
        _write(root / staged, write.data, write.mode or 0o666 & ~_umask())
        _same_owner(root / staged, root / write.path)
        steps["put"].append([staged, write.path])
        reached(f"staged {write.path}")
    # Afterwards, since the first one brings most of the others along.
    for staged, _ in steps["put"]:
        sync(root / staged)
    return steps


def _finish(root: Path) -> None:
    """Steps 2 to 4, as far as they are not made yet."""
    if (root / STAGED_JOURNAL).exists():
        os.replace(root / STAGED_JOURNAL, root / JOURNAL)
        sync(root / FOLDER)
        reached("committed")
    if (root / JOURNAL).exists():
        _carry_out(root, json.loads((root / JOURNAL).read_bytes()))


def _carry_out(root: Path, steps: dict) -> None:
    for staged, path in steps["put"]:
        if (root / staged).exists():
            _make_folders(root, (root / path).parent)
            _move(root / staged, root / path)
            reached(f"put {path}")
    for path in steps["remove"]:
        (root / path).unlink(missing_ok=True)
        reached(f"removed {path}")
    for folder in sorted(steps["folders"], key=len, reverse=True):
        with contextlib.suppress(OSError):
            (root / folder).rmdir()
        reached(f"removed folder {folder}")
    (root / JOURNAL).unlink(missing_ok=True)
    reached("journal removed")
    _tidy(root)


def _tidy(root: Path) -> None:
    """Removes what is staged, and empty folders of the record."""
    shutil.rmtree(root / NEXT, ignore_errors=True)
    for folder, _, _ in sorted(os.walk(root / FOLDER), reverse=True):
        with contextlib.suppress(OSError):
            os.rmdir(folder)


@contextlib.contextmanager
def _own_process():
    """Runs the block in a forked child in a session of its own; yields whether this is it.

    Where a fork is unsafe, because there are threads, the block runs in this process.
    """
    if threading.active_count() > 1 or not hasattr(os, "fork"):
        yield True
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which a library may have
        child = os.fork()
    if child:
        yield False
        os.waitpid(child, 0)  # what it left undone, the journal tells
        return
    with contextlib.suppress(BaseException):
        os.setsid()
        yield True
    os._exit(0)


def _move(source: Path, target: Path) -> None:
    try:
        os.replace(source, target)
    except OSError:
        # Another file system: a copy beside the target, then the rename.
        beside = target.with_name(f".{target.name}.caffe-metric")
        shutil.copy2(source, beside)
        os.replace(beside, target)
        source.unlink()


def _write(path: Path, data: bytes, mode: int) -> None:
    path.write_bytes(data)
    path.chmod(mode)


def _nearest(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    while not path.exists():
        path = path.parent
    return path


def _check_writable(root: Path, path: str) -> None:
    folder = _nearest((root / path).parent)
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: cannot be written to; nothing was changed")


def _same_owner(staged: Path, target: Path) -> None:
    """Root leaves a user's tree in the user's hands."""
    if os.geteuid() == 0:
        status = _nearest(target).stat()
        os.chown(staged, status.st_uid, status.st_gid)


def _make_folders(root: Path, folder: Path) -> None:
    if not folder.is_dir():
        _make_folders(root, folder.parent)
        folder.mkdir(exist_ok=True)
        _same_owner(folder, folder.parent)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
