"""Where images come from: IDX files, a folder for each class, or a list of files with labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from caffe_metric.data.idx import labels_beside, read_idx
from caffe_metric.data.lists import read_labelled
from caffe_metric.data.picture import Picture
from caffe_metric.support.errors import UserError

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}


@dataclasses.dataclass
class Source:
    """Labelled images. load(i) gives uint8 [channels, height, width] (BGR), or a file's bytes."""

    labels: np.ndarray  # int64 [N]
    names: list[str]  # of each image, unique where the source has unique names
    class_names: dict[int, str]
    load: Callable
    about: str = ""  # where the images come from, and how they are read

    def select(self, rows):
        """The same source with only these rows, in this order."""
        rows = np.asarray(rows)
        return Source(
            self.labels[rows],
            [self.names[row] for row in rows],
            self.class_names,
            lambda index: self.load(rows[index]),
            self.about,
        )

    def relabel(self):
        """The same source with labels 0 ... C-1, in the order of the old ones."""
        old, labels = np.unique(self.labels, return_inverse=True)
        names = {new: self.class_names.get(label, str(label)) for new, label in enumerate(old)}
        return Source(labels, self.names, names, self.load, self.about)


def open_source(path, labels=None, picture=None, root=None):
    """Opens a folder, an IDX file or a list, whichever `path` is.

    labels: the label file of IDX images, where it is not beside them under MNIST's name.
    picture: a Picture, how files are read. root: the folder that a list's files are relative to,
    where it is not the list's own. Raises UserError.
    """
    path, picture = Path(path), picture or Picture()
    source = _open(path, labels, picture, root)
    source.about = f"{path.resolve()} {root} {labels} {picture}"
    return source


def _open(path, labels, picture, root):
    if path.is_dir():
        return _folder(path, picture)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    with path.open("rb") as file:
        start = file.read(2)
    if start == b"\0\0" or path.suffix == ".gz":
        return _idx(path, labels, picture)
    return _list(path, picture, Path(root) if root else path.parent)


def _idx(path, labels_path, picture):
    images = read_idx(path)
    if images.ndim not in (3, 4) or images.dtype != np.uint8:
        raise UserError(f"{path}: holds {images.dtype} {list(images.shape)}, not images")
    labels_path = labels_path or labels_beside(path)
    if labels_path is None:
        raise UserError(f"{path}: no label file beside it; give it by --labels")
    labels = read_idx(labels_path)
    if labels.ndim != 1 or len(labels) != len(images):
        raise UserError(f"{labels_path}: shape {labels.shape} for {len(images)} images")
    if images.ndim == 3:
        images = images[:, None]
    names = [f"{row:06d}" for row in range(len(images))]
    return Source(labels.astype(np.int64), names, {}, lambda row: picture.from_array(images[row]))


def _folder(root, picture):
    files, labels, class_names = [], [], {}
    for folder in sorted(entry for entry in root.iterdir() if entry.is_dir()):
        found = sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES)
        if found:
            label = len(class_names)
            class_names[label] = folder.name
            files += found
            labels += [label] * len(found)
    if not files:
        raise UserError(f"{root}: no images in folders, one a class")
    names = [str(file.relative_to(root)) for file in files]
    return Source(
        np.array(labels, np.int64), names, class_names, lambda row: picture.read(files[row])
    )


def _list(path, picture, root):
    files, labels = read_labelled(path)
    return Source(labels, files, {}, lambda row: picture.read(root / files[row]))
