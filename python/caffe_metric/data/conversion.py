"""Images of a source to an LMDB for Caffe's Data layer; the order decides what a batch holds."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json

import numpy as np

from caffe_metric.data import datum
from caffe_metric.data.lists import check_labels
from caffe_metric.data.lmdb_file import writing_resumably
from caffe_metric.data.order import ORDERS
from caffe_metric.support.errors import UserError
from caffe_metric.support.progress import Progress
from caffe_metric.support.text import write_text

# In the LMDB folder; from it lint knows the groups.
SUMMARY = "summary.json"


@dataclasses.dataclass
class Summary:
    """What an LMDB holds. order: as in ORDERS, with its numbers; seed: of its shuffles.

    group: rows of one identity that stand together; batch: rows after which the order repeats
    its pattern. left_out: [name, why] of images that could not be read. few: names of people
    with too few images for the order. resumed: groups that a call before, killed, had written.
    """

    records: int = 0
    images: int = 0
    people: int = 0
    width: int = 0
    height: int = 0
    channels: int = 0
    order: str = "source"
    epochs: int = 1
    seed: int = 0
    group: int = 1
    batch: int = 1
    resumed: int = 0
    left_out: list = dataclasses.field(default_factory=list)
    few: list = dataclasses.field(default_factory=list)


def convert(
    source,
    out,
    order="source",
    epochs=1,
    identities=None,
    images=None,
    seed=0,
    force=False,
    progress=None,
    strict=False,
):
    """Writes a Source to an LMDB folder and returns its Summary.

    order: a name in ORDERS; identities (P) and images (K) are its numbers. An image that cannot be
    read is left out, another one of its identity takes its place in a group; strict: a UserError.
    A conversion that was killed goes on where it was, if it is asked for again.
    The folder also gets labels.txt, a line `label name` for each class, summary.json, and, where
    images were left out, left_out.txt.
    """
    numbers = {}
    if identities is not None:
        numbers["identities"] = identities
    if images is not None:
        numbers["images"] = images
    group = {"pairs": images or 2, "pk": images or 4}.get(order, 1)
    batch = group * (identities or 8) if order == "pk" else group
    summary = Summary(order=order, epochs=epochs, seed=seed, group=group, batch=batch)
    if order == "pairs":
        source = _with_partners(source, group, summary)
    check_labels(source.labels, source.names)
    rng = np.random.default_rng(seed)
    rows = np.concatenate(list(ORDERS[order](source.labels, rng, epochs=epochs, **numbers)))
    reader = _Reader(source, rows.reshape(-1, group), seed, strict, distinct=order == "pairs")
    with progress or Progress() as shown:
        groups = reader.groups(shown, str(out))
        fingerprint = _fingerprint(source, rows)
        with writing_resumably(out, groups, fingerprint, force) as (folder, count, notes):
            if not count:
                raise UserError(f"{out}: no image could be read ({notes[0][0]}: {notes[0][1]})")
            summary.records, summary.images = count, len(source.labels)
            summary.resumed = reader.first
            # A group that is drawn again may meet the same image again.
            summary.left_out = [list(note) for note in dict.fromkeys(map(tuple, notes))]
            _describe(folder, source, summary, reader.shape(rows))
    return summary


def _describe(folder, source, summary, shape):
    labels = np.unique(source.labels)
    summary.people = len(labels)
    summary.channels, summary.height, summary.width = map(int, shape)
    classes = (f"{label} {source.class_names.get(label, label)}\n" for label in labels.tolist())
    write_text(folder / "labels.txt", "".join(classes))
    numbers = {
        **dataclasses.asdict(summary),
        "left_out": len(summary.left_out),
        "few": len(summary.few),
    }
    write_text(folder / SUMMARY, json.dumps(numbers, indent=2) + "\n")
    if summary.left_out:
        lines = (f"{name}\t{why}\n" for name, why in summary.left_out)
        write_text(folder / "left_out.txt", "".join(lines))


def _with_partners(source, images, summary):
    """The Source without people of fewer images; labels 0 ... C-1 stay so."""
    labels, own, counts = np.unique(source.labels, return_inverse=True, return_counts=True)
    few = labels[counts < images].tolist()
    if not few or len(few) == len(labels):
        return source  # ORDERS says what is wrong with the latter
    summary.few = [str(source.class_names.get(label, label)) for label in few]
    kept = source.select(np.flatnonzero(counts[own] >= images))
    dense = labels[0] == 0 and labels[-1] == len(labels) - 1
    return kept.relabel() if dense else kept


def _fingerprint(source, rows):
    digest = hashlib.sha256(source.about.encode("utf-8", "surrogateescape"))
    digest.update("\0".join(source.names).encode("utf-8", "surrogateescape"))
    digest.update(np.ascontiguousarray(source.labels).tobytes())
    digest.update(np.ascontiguousarray(rows, np.int64).tobytes())
    return digest.hexdigest()


class _Reader:
    """Loads groups of rows; puts readable images in the place of those that are not.

    rows: [groups, rows of one identity]. distinct: no image twice in a group.
    """

    def __init__(self, source, rows, seed, strict, distinct):
        self._source, self._rows, self._seed = source, rows, seed
        self._strict, self._distinct = strict, distinct
        self._bad, self._shape, self.first = set(), None, 0

    def groups(self, progress, text):
        def start(first):
            self.first, total = first, len(self._rows)
            for number in range(first, total):
                progress.show(f"{text} {100 * number // total}%")
                yield self._group(number)

        return start

    def shape(self, rows):
        """Channels, height and width of the first image."""
        for row in rows:
            if row not in self._bad and self._shape is None:
                self._load(row, [])
            if self._shape is not None:
                return self._shape
        raise UserError("no image could be read")

    def _group(self, number):
        """The records of a group, and what was left out."""
        rows, notes = self._rows[number], []
        found = [(row, image) for row in rows if (image := self._load(row, notes)) is not None]
        if len(found) < len(rows) and len(rows) > 1:
            found += self._others(number, found, notes)
        if len(found) < len(rows):
            return [], notes
        records = [
            (self._source.names[row], datum.encode(image, int(self._source.labels[row])))
            for row, image in found
        ]
        return records, notes

    def _others(self, number, found, notes):
        """Other images of the group's identity, as many as are missing, if there are."""
        rows = self._rows[number]
        labels = self._source.labels
        rng = np.random.default_rng([self._seed, number])
        members = rng.permutation(np.flatnonzero(labels == labels[rows[0]]))
        held = {row for row, _ in found}
        others = []
        for row in members:
            if len(found) + len(others) == len(rows):
                break
            if row not in held and (image := self._load(row, notes)) is not None:
                others.append((row, image))
        if not self._distinct and (found or others):
            have = [*found, *others]
            others += [have[k % len(have)] for k in range(len(rows) - len(have))]
        return others

    def _load(self, row, notes):
        """The image of a row, None where it cannot be read."""
        if row in self._bad:
            return None
        name = self._source.names[row]
        try:
            image = self._source.load(row)
        except UserError as error:
            if self._strict:
                raise
            self._bad.add(row)
            notes.append([name, str(error).rpartition(": ")[2]])
            return None
        self._check_shape(name, image)
        return image

    def _check_shape(self, name, image):
        shape = _encoded_shape(image) if isinstance(image, bytes) else image.shape
        self._shape = self._shape or shape
        if not isinstance(image, bytes) and shape != self._shape:
            raise UserError(
                f"{name}: {_size(shape)}, the first image is {_size(self._shape)}; "
                "--size makes them equal"
            )


def _encoded_shape(data):
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return len(image.getbands()), image.height, image.width


def _size(shape):
    return f"{shape[2]}x{shape[1]} with {shape[0]} channels"


def keep_classes(source, exclude=(), include=(), relabel=False, limit=None):
    """The Source without or with only some classes, perhaps with labels 0 ... C-1.

    limit: so many images of each class, the first ones. Raises UserError where nothing is left or
    a class to be taken out is not there.
    """
    present = set(source.labels.tolist())
    missing = sorted((set(exclude) | set(include)) - present)
    if missing:
        raise UserError(f"no image has label {', '.join(map(str, missing))}")
    wanted = np.ones(len(source.labels), bool)
    if include:
        wanted &= np.isin(source.labels, list(include))
    wanted &= ~np.isin(source.labels, list(exclude))
    rows = np.flatnonzero(wanted)
    if limit is not None and len(rows):
        rows = rows[_place_in_class(source.labels[rows]) < limit]
    if not len(rows):
        raise UserError("no images are left")
    source = source.select(rows)
    return source.relabel() if relabel else source


def _place_in_class(labels):
    """How many rows before each have its label."""
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(labels[order]) != 0])
    place = np.empty(len(labels), np.int64)
    place[order] = np.arange(len(labels)) - np.repeat(starts, np.diff(np.r_[starts, len(labels)]))
    return place
