"""IDX files, the format of MNIST and its relatives, plain or gzipped."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np

from caffe_metric.support.errors import UserError

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path):
    """Reads an IDX file into an array of its own shape and type (native byte order).

    Raises UserError where the file is no IDX file or ends early.
    """
    path = Path(path)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read()
    except (OSError, EOFError) as error:
        raise UserError(f"{path}: {error}") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _TYPES:
        raise UserError(f"{path}: not an IDX file")
    dtype, axes = np.dtype(_TYPES[data[2]]), data[3]
    header = 4 + 4 * axes
    if len(data) < header:
        raise UserError(f"{path}: ends within its header")
    shape = struct.unpack(f">{axes}I", data[4:header])
    expected = header + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if len(data) != expected:
        raise UserError(f"{path}: {len(data)} bytes, {expected} expected for shape {shape}")
    array = np.frombuffer(data, dtype, offset=header).reshape(shape)
    return array.astype(dtype.newbyteorder("="))


def labels_beside(images):
    """The label file that belongs to an image file by MNIST's naming, or None."""
    images = Path(images)
    name = images.name.replace("images", "labels").replace("idx3", "idx1")
    labels = images.with_name(name)
    return labels if labels != images and labels.exists() else None
