"""Lists of images: lines `FILE LABEL`, or names side by side."""

from __future__ import annotations

import numpy as np

from caffe_metric.support.errors import UserError
from caffe_metric.support.text import read_lines

# Caffe carries labels in 32-bit floats: from here on two labels can be the same float.
LABEL_LIMIT = 1 << 24


def read_labelled(path) -> tuple[list[str], np.ndarray]:
    """Names and labels (int64 [N]) of a list with lines `FILE LABEL`.

    Blanks, tabs and full-width blanks separate; a name may hold blanks. Raises UserError with the
    line that is wrong.
    """
    names, labels = [], []
    for number, line in read_lines(path):
        name, *label = line.rsplit(None, 1)
        if not label or not label[0].isdecimal():
            raise UserError(f"{path}:{number}: 'FILE LABEL' expected, not '{line}'")
        if len(label[0]) > 18:
            raise UserError(f"{path}:{number}: label {label[0]} is too large")
        names.append(name)
        labels.append(int(label[0]))
    return names, np.array(labels, np.int64)


def labelled_lines(names, labels) -> str:
    """Lines `FILE LABEL`, as Caffe's ImageData reads them."""
    return "".join(f"{name} {label}\n" for name, label in zip(names, labels))


def check_labels(labels, names=None) -> None:
    """Raises UserError where Caffe would take a label for another one, or for none."""
    labels = np.asarray(labels)
    wrong = np.flatnonzero((labels < 0) | (labels >= LABEL_LIMIT))
    if not len(wrong):
        return
    row = wrong[0]
    where = f"{names[row]}: " if names else ""
    why = (
        "labels are integers >= 0"
        if labels[row] < 0
        else f"Caffe's 32-bit labels are exact below {LABEL_LIMIT} only: number the classes from 0"
    )
    raise UserError(f"{where}label {labels[row]}, but {why}")


def split_names(line: str) -> list[str]:
    """The words of a line; where it holds tabs only they separate, so that names hold blanks."""
    return line.split("\t") if "\t" in line else line.split()


def join_names(names) -> str:
    """Names as one line that split_names takes apart again. Raises UserError where none can be."""
    names = list(names)
    for name in names:
        if set(name) & set("\t\r\n"):
            raise UserError(f"{name!r}: a list cannot hold a name with a tab or a line end")
    return ("\t" if any(len(name.split()) != 1 for name in names) else " ").join(names)
