"""NumPy's files, read without trust: what is truncated, of another kind or no file is one error."""

from __future__ import annotations

import struct
import zipfile
import zlib

import numpy as np

from caffe_metric.support.errors import UserError

# What NumPy and zipfile raise for bytes that are not what they should be.
_BROKEN = (
    ValueError,
    EOFError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    MemoryError,
    OverflowError,
    SyntaxError,
    TypeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def read_npz(path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, by name. Raises UserError."""
    found = _load(path)
    if isinstance(found, np.ndarray):
        raise UserError(f"{path}: one array (.npy); an .npz file of several is needed")
    return found


def read_npy(path) -> np.ndarray:
    """The array of an .npy file. Raises UserError."""
    found = _load(path)
    if not isinstance(found, np.ndarray):
        raise UserError(f"{path}: several arrays (.npz); an .npy file of one is needed")
    return found


def _load(path):
    try:
        with open(path, "rb") as file:
            found = np.load(file, allow_pickle=False)
            if isinstance(found, np.ndarray):
                return found
            return {name: found[name] for name in found.files}
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    except _BROKEN as error:
        raise UserError(f"{path}: truncated, or no file of NumPy's ({error})") from error
