"""Lists of pairs to verify: the format of Labeled Faces in the Wild, and a plain one."""

from __future__ import annotations

from pathlib import PurePosixPath

import numpy as np

from caffe_metric.data.lists import split_names
from caffe_metric.support.errors import UserError
from caffe_metric.support.text import read_lines

_PLAIN_FOLDS = 10


def read_pairs(path, names):
    """Reads a list of pairs; returns (left, right, same, fold), each an array [P].

    left and right are row numbers of `names`, the images' file names. LFW: a header `FOLDS PAIRS`,
    then for each fold PAIRS lines `NAME I J` (same) and PAIRS lines `NAME I OTHER J`; or `PAIRS`,
    and one such set, whose pairs of each kind are ten folds one after another. Image I of NAME is
    the file NAME_000I, in any folder and format. Without a header: lines `FILE FILE 0|1`, in ten
    folds one after another. Raises UserError with the line that is wrong, and where the header
    counts other pairs than there are.
    """
    lines = [split_names(line) for _, line in read_lines(path)]
    header = lines[0]
    lfw = len(header) <= 2 and all(word.isdecimal() for word in header)
    find = _by_person(names) if lfw else _by_file(names)
    rows = []
    for number, words in enumerate(lines[1:] if lfw else lines, 2 if lfw else 1):
        try:
            rows.append(_lfw_pair(words, find) if lfw else _plain_pair(words, find))
        except (ValueError, KeyError) as error:
            why = f"{error.args[0]} has no embedding" if isinstance(error, KeyError) else error
            raise UserError(f"{path}: pair {number}: {why}") from error
    if not rows:
        raise UserError(f"{path}: no pairs")
    left, right, same = (np.array(column) for column in zip(*rows))
    same = same.astype(bool)
    if lfw:
        fold = _lfw_folds(path, [int(word) for word in header], same)
    elif len(rows) < _PLAIN_FOLDS:
        raise UserError(f"{path}: {len(rows)} pairs are not enough for {_PLAIN_FOLDS} folds")
    else:
        fold = np.arange(len(rows)) * _PLAIN_FOLDS // len(rows)
    return left, right, same, fold


def _lfw_folds(path, header, same):
    """The fold of each pair. Raises UserError where the pairs are not those of the header."""
    folds, pairs = header if len(header) == 2 else (1, header[0])
    if folds < 1 or pairs < 1:
        raise UserError(f"{path}: the header counts {folds} folds of {pairs} pairs")
    if len(same) != 2 * folds * pairs:
        raise UserError(
            f"{path}: {len(same)} pairs; the header counts {folds} x {pairs} of each kind, "
            f"{2 * folds * pairs} in all"
        )
    kinds = np.tile(np.repeat([True, False], pairs), folds)
    wrong = np.flatnonzero(same != kinds)
    if len(wrong):
        kind = "one person" if kinds[wrong[0]] else "two people"
        raise UserError(f"{path}: pair {wrong[0] + 2} must be of {kind}, by the header's counts")
    if len(header) == 2:
        if folds < 2:
            raise UserError(f"{path}: one fold: a threshold is chosen on other folds")
        return np.repeat(np.arange(folds), 2 * pairs)
    if pairs < _PLAIN_FOLDS:
        raise UserError(f"{path}: {pairs} pairs of a kind are not enough for {_PLAIN_FOLDS} folds")
    return np.tile(np.arange(pairs) * _PLAIN_FOLDS // pairs, 2)


def pair_scores(unit, left, right):
    """Cosine similarities of the listed pairs of unit rows, float32 [P]."""
    return np.einsum("ij,ij->i", unit[left], unit[right])


def _lfw_pair(words, find):
    if len(words) == 3:
        name, first, second = words
        other = name
    elif len(words) == 4:
        name, first, other, second = words
    else:
        raise ValueError(f"`NAME I J` or `NAME I OTHER J` expected, not '{' '.join(words)}'")
    left, right = f"{name}_{int(first):04d}", f"{other}_{int(second):04d}"
    return find[left], find[right], name == other


def _plain_pair(words, find):
    if len(words) != 3 or words[2] not in ("0", "1"):
        raise ValueError(f"`FILE FILE 0|1` expected, not '{' '.join(words)}'")
    return find[words[0]], find[words[1]], words[2] == "1"


def _by_person(names):
    return {PurePosixPath(str(name)).stem: row for row, name in enumerate(names)}


def _by_file(names):
    return {str(name): row for row, name in enumerate(names)}
