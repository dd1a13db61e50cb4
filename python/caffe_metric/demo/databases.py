"""The LMDBs that the examples' nets read."""

from __future__ import annotations

import hashlib
import json

from caffe_metric.data.conversion import convert, keep_classes
from caffe_metric.data.sources import Source
from caffe_metric.demo.images import Images
from caffe_metric.support.files import replacing

# Order and its numbers, of each training database; the example that reads it says why.
TRAINING = {
    "train_pk.lmdb": {"order": "pk", "identities": 7, "images": 14, "epochs": 3},
    "train_pairs.lmdb": {"order": "pairs", "epochs": 3},
    "train_random.lmdb": {"order": "random", "epochs": 2},
}
TEST = "test.lmdb"


def make_databases(images: Images, folder, seed=0):
    """Writes the databases that are missing or out of date; returns {name: fingerprint}."""
    present = set(images.train.labels.tolist())
    train = keep_classes(
        images.train, exclude=present.intersection(images.unseen_classes), relabel=True
    )
    classes = len(present.difference(images.unseen_classes))
    made = {}
    for number, (name, options) in enumerate(TRAINING.items()):
        if "identities" in options:
            options = {**options, "identities": min(classes, options["identities"])}
        made[name] = _make(folder / name, train, seed=seed + number, **options)
    made[TEST] = _make(folder / TEST, images.test)
    return made


def _make(path, source: Source, **options):
    fingerprint = _fingerprint(source, options)
    note = path.with_suffix(".json")
    if path.exists() and note.exists() and json.loads(note.read_text()) == fingerprint:
        return fingerprint
    note.unlink(missing_ok=True)
    convert(source, path, force=True, **options)
    with replacing(note) as temporary:
        temporary.write_text(json.dumps(fingerprint))
    return fingerprint


def _fingerprint(source, options):
    digest = hashlib.sha256(repr(sorted(options.items())).encode())
    digest.update(source.labels.tobytes())
    for row in range(0, len(source.labels), 97):
        digest.update(source.load(row).tobytes())
    return digest.hexdigest()
