"""Files that appear whole: written beside their target, then renamed."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from caffe_metric.support.errors import UserError


@contextlib.contextmanager
def replacing(path):
    """Yields a temporary path beside `path`, with its suffix, and renames it when the block ends.

    A block that raises leaves an older file as it was. Folders on the way are made.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(path.suffix, f".{path.stem}-", path.parent)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path, force=False):
    """The same for a folder. One that exists is replaced with `force`, else a UserError."""
    path = Path(path)
    if path.exists() and not force:
        raise UserError(f"{path}: exists already (--force replaces it)")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if path.is_dir() and not path.is_symlink():
            # A folder cannot be renamed onto a full one: the old one steps aside first.
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
            path.replace(old)
            temporary.replace(path)
            shutil.rmtree(old)
        else:
            path.unlink(missing_ok=True)
            temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
