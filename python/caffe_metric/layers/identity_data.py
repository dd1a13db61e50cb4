"""IdentityData: batches by identity, decoded ahead of the net."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from caffe.proto import caffe_pb2
from google.protobuf.message import DecodeError

import caffe
from caffe_metric.data.identity import batches
from caffe_metric.data.identity.source import open_images
from caffe_metric.data.identity.transform import Transform
from caffe_metric.data.identity.workers import Decoder
from caffe_metric.data.lists import check_labels
from caffe_metric.data.picture import Picture
from caffe_metric.layers.base import MetricLayer
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
    ),
)


class IdentityDataLayer(MetricLayer):
    """Reads labelled images in batches that hold several images of each identity.

    top 0  images, B x channels x height x width, BGR
    top 1  optional: labels, B

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
    width, height, gray  to resize to, and to one channel
    crop_size   a square crop: at random in TRAIN, of the centre in TEST
    mirror      every other image at random, in TRAIN
    mean_value  one number, or one a channel; mean_file: a .binaryproto or .npy; subtracted
    scale       then multiplied by
    seed        of all that is random; without it Caffe's random_seed governs
    workers     decoding processes, each `ahead` (2) batches ahead of the net; 0 for none
    """

    HAS_RULES = False

    def parse(self, values):
        return PARAMETERS.parse(values)

    def configure(self, bottom, top):
        p = self.parameters
        if len(bottom) != 0 or not 1 <= len(top) <= 2:
            raise ValueError(
                f"has {len(bottom)} bottoms and {len(top)} tops, must have 0 bottoms and 1 or 2 "
                "tops (images, labels)"
            )
        if not p.source:
            raise ValueError("source is not set")
        if (p.width == 0) != (p.height == 0):
            raise ValueError(f"width is {p.width} and height {p.height}: set both, or none")
        size = (p.width, p.height) if p.width else None
        images = open_images(p.source, p.root, Picture(size, p.gray))
        check_labels(images.labels, images.names)
        transform = Transform(p.crop_size, self._mean(), p.scale)
        self._train = self.phase == caffe.TRAIN
        seed = self.draw_key() if p.seed is None else p.seed
        rng = np.random.default_rng(seed)
        jobs = self._jobs(images.labels, rng, self._batches(images.labels, rng))
        self._shape = (self._size(), *transform.shape(images.load(0).shape))
        self._decoder = Decoder(jobs, images.load, transform, self._shape, p.workers, p.ahead)

    def shape(self, bottom, top):
        top[0].reshape(*self._shape)
        if len(top) > 1:
            top[1].reshape(self._shape[0])

    def compute(self, bottom, top):
        labels = self._decoder.next(top[0].data)
        if len(top) > 1:
            top[1].data[...] = labels

    def propagate(self, top, propagate_down, bottom):
        """Data has no gradient."""

    def _size(self) -> int:
        p = self.parameters
        if p.layout == "PK":
            return p.identities * (p.images or 4)
        return p.batch_size

    def _batches(self, labels, rng):
        p = self.parameters
        if p.layout == "PK":
            if p.identities < 1 or p.images == 0:
                raise ValueError(f"identities is {p.identities}, images {p.images}: at least 1")
            return batches.pk(labels, rng, p.identities, p.images or 4)
        if p.batch_size < 1:
            raise ValueError(f"batch_size must be set with layout {p.layout}")
        if p.layout == "PAIRS":
            return batches.pairs(labels, rng, p.batch_size, 2 if p.images is None else p.images)
        if p.layout == "LISTED":
            images = 2 if p.images is None else p.images
            return batches.listed(labels, rng, p.batch_size, images, p.shuffle)
        if p.layout == "TRIPLETS":
            return batches.triplets(labels, rng, p.batch_size, p.num_negatives)
        if p.layout == "THIRDS":
            return batches.thirds(labels, rng, p.batch_size)
        return batches.shuffled(labels, rng, p.batch_size)

    def _jobs(self, labels, rng, order):
        """Rows, places of crops, mirrored or not, and labels of each batch."""
        p = self.parameters
        for rows in order:
            places = rng.random((len(rows), 2)) if self._train else np.full((len(rows), 2), 0.5)
            mirrors = rng.random(len(rows)) < 0.5 * (p.mirror and self._train)
            yield rows, places, mirrors, labels[rows]

    def _mean(self):
        p = self.parameters
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
