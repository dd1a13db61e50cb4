"""Files that appear whole: written beside their target, flushed to the disk, then renamed."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path

from caffe_metric.support.errors import UserError

# Of <fcntl.h> and <linux/fs.h>.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
# What a kernel, a C library or a file system answers that cannot exchange two names.
_CANNOT_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


@contextlib.contextmanager
def replacing(path):
    """Yields a temporary path beside `path`, with its suffix, and renames it when the block ends.

    A block that raises leaves an older file as it was. Folders on the way are made. A link stays,
    and the file it leads to is replaced. What is no regular file (a device, a pipe), or is one of
    this process's own streams, is written to, never replaced. Raises UserError.
    """
    path = Path(path)
    through = _is_written_through(path)
    target = path if through else Path(os.path.realpath(path))
    folder = None if through else target.parent
    try:
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(path.suffix, f".{target.stem}-", folder)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        if through:
            _write_through(temporary, path)
        else:
            temporary.chmod(_mode(target, 0o666))
            sync(temporary)
            temporary.replace(target)
            sync(target.parent)
    except OSError as error:
        if error.filename != str(temporary):
            raise
        raise UserError(f"{path}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path, force=False):
    """The same for a folder. One that exists is replaced with `force`, else a UserError.

    There is a whole folder at `path` at any moment, where the file system can exchange two names.
    Where it cannot, the next call of this function puts back what a killed one had moved aside.
    """
    shown, path = path, _prepare_folder(path, force)
    try:
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    except OSError as error:
        raise UserError(f"{shown}: {error.strerror}") from error
    try:
        yield temporary
        _publish(temporary, path)
    finally:
        _remove(temporary)  # the older folder now, if there was one


@contextlib.contextmanager
def resuming_folder(path, fingerprint: str, force=False):
    """The same, but what a killed or interrupted process had written so far is yielded again.

    fingerprint: what the content depends on; a folder that was begun with another one is thrown
    away. An error throws it away, too. Raises UserError while another process writes it.
    """
    shown, path = path, _prepare_folder(path, force)
    temporary = path.with_name(f".{path.name}-partial")
    with _begun(shown, path.with_name(f".{path.name}-partial.txt")) as note:
        if note.read() != fingerprint or not temporary.is_dir():
            _remove(temporary)
            temporary.mkdir()
            _rewrite(note, fingerprint)
        try:
            yield temporary
            _rewrite(note, "")  # from here on it is begun no more
            _publish(temporary, path)
        except Exception:
            _rewrite(note, "")
            _remove(temporary)
            raise
        _remove(temporary)


@contextlib.contextmanager
def _begun(shown, note: Path):
    """The note of a folder that is begun, locked; it goes away where it is left empty."""
    try:
        file = note.open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{shown}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"{shown}: another process is writing it") from error
        file.seek(0)
        try:
            yield file
        finally:
            file.seek(0)
            if not file.read():
                note.unlink()


def _rewrite(file, text: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()


def _prepare_folder(path, force):
    """The folder that links lead to; what was killed is put back. Raises UserError."""
    shown, path = path, Path(os.path.realpath(path))
    aside = _aside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if aside.exists():
            _take_back(aside, path)
    except OSError as error:
        raise UserError(f"{shown}: {error.strerror}") from error
    if path.exists() and not force:
        raise UserError(f"{shown}: exists already (--force replaces it)")
    return path


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}-replaced")


def _publish(temporary: Path, path: Path) -> None:
    """Gives a finished folder its name; the older one, if there is one, gets the temporary name."""
    temporary.chmod(_mode(path, 0o777) if path.is_dir() else 0o777 & ~_umask())
    for file in temporary.rglob("*"):
        sync(file)
    sync(temporary)
    if not path.exists():
        temporary.replace(path)
    elif not _exchange(temporary, path):
        _step_aside(path, _aside(path), temporary)
    sync(path.parent)


def _is_written_through(path: Path) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    if stat.S_ISDIR(found.st_mode):
        raise UserError(f"{path}: is a folder")
    return not stat.S_ISREG(found.st_mode) or _own_stream(found) is not None


def _own_stream(found):
    """The descriptor, 1 or 2, of the stream that writes to this file already; None if none does."""
    for number in (1, 2):
        with contextlib.suppress(OSError):
            if os.path.samestat(found, os.fstat(number)):
                return number
    return None


def _write_through(temporary: Path, path: Path) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    number = _own_stream(path.stat())
    # A file opened a second time would be written from its start, over what the stream wrote.
    handle = os.open(path, os.O_WRONLY) if number is None else os.dup(number)
    with temporary.open("rb") as source, os.fdopen(handle, "wb") as target:
        shutil.copyfileobj(source, target)


def _step_aside(path: Path, aside: Path, new: Path) -> None:
    path.replace(aside)
    try:
        new.replace(path)
    except OSError:
        aside.replace(path)
        raise
    _remove(aside)


def _take_back(aside: Path, path: Path) -> None:
    if path.exists():
        _remove(aside)
    else:
        aside.replace(path)


def _exchange(first: Path, second: Path) -> bool:
    """Exchanges two names in one step; False where this system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    done = renameat2(
        _AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE
    )
    if done == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(second))


def sync(path: Path) -> None:
    """Flushes a file or a folder to the disk; not every file system can flush a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _mode(path: Path, usual: int) -> int:
    """The mode of an older file, else the usual one."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return usual & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
