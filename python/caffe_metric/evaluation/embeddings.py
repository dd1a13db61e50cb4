"""Files of embeddings: what `caffe-metric extract` writes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from caffe_metric.support.arrays import read_npz
from caffe_metric.support.errors import UserError


@dataclasses.dataclass
class Embeddings:
    """Rows [N, D] of a file with labels int64 [N], names [N] or None.

    title: what a report calls them. place: the number of each row in the file, which has `total`.
    """

    title: str
    rows: np.ndarray
    labels: np.ndarray
    names: np.ndarray | None
    place: np.ndarray
    total: int

    def of_classes(self, classes) -> Embeddings:
        """Those of some labels. Raises UserError where there are none."""
        kept = np.isin(self.labels, classes)
        if not kept.any():
            raise UserError(f"{self.title}: no row has a label of --classes")
        names = None if self.names is None else self.names[kept]
        return Embeddings(
            self.title, self.rows[kept], self.labels[kept], names, self.place[kept], self.total
        )


def titles(paths) -> list[str]:
    """What files are called: their stems, or their paths where two stems are the same.

    Raises UserError where a file is given twice.
    """
    stems = [Path(path).stem for path in paths]
    found = [str(path) if stems.count(stem) > 1 else stem for path, stem in zip(paths, stems)]
    for title in found:
        if found.count(title) > 1:
            raise UserError(f"{title}: given twice")
    return found


def open_embeddings(path, title: str) -> Embeddings:
    """A file. Raises UserError."""
    rows, labels, names = load(path)
    return Embeddings(title, rows, labels, names, np.arange(len(rows)), len(rows))


def load(path):
    """(embeddings [N, D], labels int64 [N], names [N] or None) of a file. Raises UserError."""
    arrays = read_npz(path)
    for name in ("embeddings", "labels"):
        if name not in arrays:
            raise UserError(f"{path}: has no array '{name}'")
    embeddings, labels, names = arrays["embeddings"], arrays["labels"], arrays.get("names")
    if embeddings.ndim != 2 or labels.shape != (len(embeddings),):
        raise UserError(f"{path}: embeddings {embeddings.shape} and labels {labels.shape}")
    if not embeddings.size:
        raise UserError(f"{path}: empty")
    if names is not None and names.shape != labels.shape:
        raise UserError(f"{path}: {len(labels)} labels and names of shape {names.shape}")
    return _real(path, embeddings), _numbered(path, labels), names


def _real(path, embeddings):
    if embeddings.dtype.kind not in "fiu":
        raise UserError(f"{path}: embeddings are {embeddings.dtype}, must be numbers")
    good = np.isfinite(embeddings).all(axis=1)
    if not good.all():
        raise UserError(f"{path}: row {np.argmin(good)} of the embeddings holds NaN or Inf")
    return embeddings if embeddings.dtype.kind == "f" else embeddings.astype(np.float32)


def _numbered(path, labels):
    """Labels as int64; names of classes are numbered in their order."""
    if labels.dtype.kind in "US":
        return np.unique(labels, return_inverse=True)[1]
    with np.errstate(invalid="ignore"):
        whole = labels.astype(np.int64) if labels.dtype.kind in "fiub" else None
    if whole is None or not (whole == labels).all():
        raise UserError(f"{path}: labels are {labels.dtype}, must be integers, or names of classes")
    return whole
