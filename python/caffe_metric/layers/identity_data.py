"""IdentityData: batches by identity, decoded ahead of the net."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from caffe.proto import caffe_pb2
from google.protobuf.message import DecodeError

import caffe
from caffe_metric.data.identity import batches
from caffe_metric.data.identity.source import open_images
from caffe_metric.data.identity.transform import CENTRE, Transform
from caffe_metric.data.identity.workers import Decoder
from caffe_metric.data.lists import check_labels
from caffe_metric.data.picture import Picture
from caffe_metric.layers.base import MetricLayer
from caffe_metric.nets import batch_counts
from caffe_metric.nets.schema import Enum, Field, Message
from caffe_metric.support.arrays import read_npy
from caffe_metric.support.errors import UserError

LAYOUTS = ("PK", "PAIRS", "TRIPLETS", "THIRDS", "SHUFFLED", "LISTED")
LAYOUT = Enum("Layout", {name: number for number, name in enumerate(LAYOUTS)})


def _fields(*rows):
    return tuple(
        Field(name, kind, number, default, enum=LAYOUT if kind == "Layout" else None)
        for number, (name, kind, default) in enumerate(rows, 1)
    )


PARAMETERS = Message(
    "IdentityDataParameter",
    _fields(
        ("source", "string", ""),
        ("root", "string", ""),
        ("layout", "Layout", "PK"),
        ("identities", "uint32", 8),
        ("images", "uint32", None),
        ("batch_size", "uint32", 0),
        ("num_negatives", "uint32", 1),
        ("width", "uint32", 0),
        ("height", "uint32", 0),
        ("gray", "bool", False),
        ("crop_size", "uint32", 0),
        ("mirror", "bool", False),
        ("mean_value", "list", None),
        ("mean_file", "string", ""),
        ("scale", "float", 1.0),
        ("seed", "uint64", None),
        ("workers", "uint32", 2),
        ("ahead", "uint32", 2),
        ("shuffle", "bool", False),
        ("persist_iteration", "bool", True),
        ("iteration", "uint64", 0),
        ("triplets", "string", ""),
    ),
)
NO_BLOB = (
    "has no param { lr_mult: 0 decay_mult: 0 }, so that no blob keeps the number of its batch: "
    "`caffe train --snapshot` will begin at the first one"
)


class IdentityDataLayer(MetricLayer):
    """Reads labelled images in batches that hold several images of each identity.

    top 0  images, B x channels x height x width, BGR
    top 1  optional: labels, B
    blob 0 with persist_iteration: the number of batches that TRAIN forwards have given, on all
           ranks

    A batch is a function of the seed and its number, however many workers decode it. A training
    that is resumed goes on at the number in the blob, without reading what came before. A Python
    layer cannot set the learning rate of its blob, so its prototxt does (`caffe-metric train` does
    so by itself):

        param { lr_mult: 0 decay_mult: 0 }

    Without that Caffe asks its own losses for the labels' gradient, at which they abort: under the
    `caffe` tool such a net gets no blob, unless persist_iteration is set, and a line of the log
    says that a resumed training will begin at the first batch.

    source      an LMDB, a list with lines `FILE LABEL` or `PERSON@FILE LABEL`, a folder with one
                folder a class, or an IDX file
    root        the folder that a list's files are relative to, where it is not the list's own
    layout      PK: `identities` x `images` (8 x 4), an identity's images side by side; one with
                fewer images repeats them
                PAIRS: batch_size rows in groups of `images` (2) of one identity, for RankHardLoss;
                identities with fewer images are left out
                TRIPLETS: batch_size rows in groups of anchor, positive, num_negatives (1) negatives
                THIRDS: a third anchors, a third positives, a third negatives (the older layers')
                SHUFFLED: batch_size rows of any identity
                LISTED: batch_size rows as they stand in the source, in groups of `images` (2) rows
                of one identity that stand together there; `shuffle` shuffles the groups
    triplets    with TRIPLETS: an .npy of `caffe-metric mine`, int [T, 2 + num_negatives], the rows
                of the source that stand in a group; else negatives are drawn at random
    width, height, gray  to resize to, and to one channel
    crop_size   a square crop: at random in TRAIN, of the centre in TEST
    mirror      every other image at random, in TRAIN
    mean_value  one number, or one a channel; mean_file: a .binaryproto or .npy; subtracted
    scale       then multiplied by
    seed        of all that is random; without it Caffe's random_seed governs
    workers     decoding processes, each `ahead` (2) batches ahead of the net; 0 for none
    persist_iteration  (true) whether the blob is there. A model that has a layer of the same name
                without it needs false, as do a Data layer and this one of one name in one net
    iteration   the number of the first batch, where the blob is new or not there (0)
    """

    HAS_RULES = False

    _rank, _ranks = 0, 1

    def parse(self, values):
        parsed = PARAMETERS.parse(values)
        if "persist_iteration" not in values and not batch_counts.bears_blob(self.param_str):
            parsed.persist_iteration = False
            self.log(f"{self.title}: {NO_BLOB}")
        return parsed

    def configure(self, bottom, top):
        p = self.parameters
        if len(bottom) != 0 or not 1 <= len(top) <= 2:
            raise ValueError(
                f"has {len(bottom)} bottoms and {len(top)} tops, must have 0 bottoms and 1 or 2 "
                "tops (images, labels)"
            )
        images, transform = open_reader(p)
        self._train = self.phase == caffe.TRAIN
        self._seed = self.draw_key() if p.seed is None else p.seed
        self._labels = images.labels
        self._order = self._batches(images.labels)
        self._shape = (self._size(), *transform.shape(images.load(0).shape))
        if p.persist_iteration:
            self.blobs.add_blob(1)
            self.blobs[0].data[...] = p.iteration
        self._number = None
        self._decoder = Decoder(self._job, images.load, transform, self._shape, p.workers, p.ahead)

    def shape(self, bottom, top):
        top[0].reshape(*self._shape)
        if len(top) > 1:
            top[1].reshape(self._shape[0])

    def compute(self, bottom, top):
        persist = self.parameters.persist_iteration
        if self._number is None:
            # A solver has loaded the blob by now.
            loaded = persist and self._train
            self._number = round(float(self.blobs[0].data[0])) if loaded else self._first()
            self._seek()
        labels = self._decoder.next(top[0].data)
        self._number += self._ranks
        if persist and self._train:  # a TEST net shares the blob of the TRAIN net
            self.blobs[0].data[...] = self._number
        if len(top) > 1:
            top[1].data[...] = labels

    def propagate(self, top, propagate_down, bottom):
        """Data has no gradient."""

    def deal(self, rank: int, ranks: int) -> None:
        """Gives the batches of one of the ranks that train together; before the first forward."""
        self._rank, self._ranks = rank, ranks

    def use_triplets(self, path) -> None:
        """Goes on with the groups of another file of `mine`, from the next batch on."""
        self.parameters.triplets = str(path)
        self._order = self._batches(self._labels)
        if self._number is not None:
            self._seek()

    def _seek(self):
        """The decoder counts the batches of this rank."""
        turn, self._shift = divmod(self._number, self._ranks)
        self._decoder.seek(turn)

    def _first(self) -> int:
        return self.parameters.iteration if self._train else 0

    def _size(self) -> int:
        p = self.parameters
        if p.layout == "PK":
            return p.identities * (p.images or 4)
        return p.batch_size

    def _batches(self, labels):
        p, seed = self.parameters, self._seed
        if p.layout == "PK":
            if p.identities < 1 or p.images == 0:
                raise ValueError(f"identities is {p.identities}, images {p.images}: at least 1")
            return batches.pk(labels, seed, p.identities, p.images or 4)
        if p.batch_size < 1:
            raise ValueError(f"batch_size must be set with layout {p.layout}")
        if p.triplets:
            return batches.groups(self._mined(len(labels)), seed, p.batch_size)
        if p.layout == "PAIRS":
            return batches.pairs(labels, seed, p.batch_size, 2 if p.images is None else p.images)
        if p.layout == "LISTED":
            images = 2 if p.images is None else p.images
            return batches.listed(labels, seed, p.batch_size, images, p.shuffle)
        if p.layout == "TRIPLETS":
            return batches.triplets(labels, seed, p.batch_size, p.num_negatives)
        if p.layout == "THIRDS":
            return batches.thirds(labels, seed, p.batch_size)
        return batches.shuffled(labels, seed, p.batch_size)

    def _mined(self, count):
        p = self.parameters
        if p.layout != "TRIPLETS":
            raise ValueError(f"triplets is set, but the layout is {p.layout}, not TRIPLETS")
        rows = read_npy(Path(p.triplets))
        want = 2 + p.num_negatives
        if rows.ndim != 2 or rows.shape[1] != want or rows.dtype.kind not in "iu" or not len(rows):
            raise ValueError(
                f"{p.triplets}: holds {rows.dtype} {list(rows.shape)}, not [T, {want}]"
            )
        if rows.min() < 0 or rows.max() >= count:
            raise ValueError(f"{p.triplets}: is of another source: row {rows.max()} of {count}")
        return rows

    def _job(self, turn):
        """Rows, places of crops, mirrored or not, and labels of a batch."""
        number = turn * self._ranks + self._shift + self._rank
        rows = self._order(number)
        if not self._train:
            return (
                rows,
                np.full((len(rows), 2), CENTRE),
                np.zeros(len(rows), bool),
                self._labels[rows],
            )
        rng = batches.generator(self._seed, batches.CROPS, number)
        places = rng.random((len(rows), 2))
        mirrors = rng.random(len(rows)) < 0.5 * self.parameters.mirror
        return rows, places, mirrors, self._labels[rows]


def open_reader(p):
    """The images that parameters name, and what is done to each. Raises ValueError, UserError."""
    if not p.source:
        raise ValueError("source is not set")
    if (p.width == 0) != (p.height == 0):
        raise ValueError(f"width is {p.width} and height {p.height}: set both, or none")
    size = (p.width, p.height) if p.width else None
    images = open_images(p.source, p.root, Picture(size, p.gray))
    check_labels(images.labels, images.names)
    return images, Transform(p.crop_size, _mean(p), p.scale)


def _mean(p):
    if p.mean_value is not None and p.mean_file:
        raise ValueError("mean_value and mean_file are both set: set one of them")
    if p.mean_value is not None:
        mean = np.atleast_1d(np.asarray(p.mean_value, np.float32))
        if mean.ndim != 1 or len(mean) not in (1, 3):
            raise ValueError(f"mean_value is {p.mean_value}, must be 1 number or 3")
        return mean[:, None, None]
    if not p.mean_file:
        return None
    try:
        return _read_mean(Path(p.mean_file))
    except (OSError, ValueError, UserError, DecodeError) as error:
        raise ValueError(f"mean_file: {error}") from None


def _read_mean(path: Path) -> np.ndarray:
    """[channels, height, width] or [channels, 1, 1]."""
    if path.suffix == ".npy":
        mean = read_npy(path).astype(np.float32)
        return mean[:, None, None] if mean.ndim == 1 else mean
    blob = caffe_pb2.BlobProto.FromString(path.read_bytes())
    shape = blob.shape.dim or (blob.num, blob.channels, blob.height, blob.width)
    return np.array(blob.data, np.float32).reshape(list(shape)[-3:])
