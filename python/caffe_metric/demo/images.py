"""The demo's images: Fashion-MNIST of the distribution, or else scikit-learn's digits."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from caffe_metric.data.picture import Picture
from caffe_metric.data.sources import Source, open_source

FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")
FASHION_CLASSES = (
    "T-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
UNSEEN = (2, 5, 8)
SIDE = 28


@dataclasses.dataclass
class Images:
    """Training and test images, 28 x 28 and gray, with ten classes."""

    title: str
    train: Source
    test: Source
    class_names: tuple
    unseen_classes: tuple = UNSEEN

    def pixels(self):
        """The test images, uint8 [N, 28, 28]."""
        return np.stack([self.test.load(row)[0] for row in range(len(self.test.labels))])

    def unseen(self):
        """Which test images are of classes kept out of training, bool [N]."""
        return np.isin(self.test.labels, self.unseen_classes)


def load_images(folder=FASHION_FOLDER):
    """Fashion-MNIST from IDX files in `folder`; the digits where it is not there."""
    train = Path(folder) / "train-images-idx3-ubyte.gz"
    test = Path(folder) / "t10k-images-idx3-ubyte.gz"
    if train.exists() and test.exists():
        return Images("Fashion-MNIST", open_source(train), open_source(test), FASHION_CLASSES)
    return _digits()


def _digits():
    from sklearn.datasets import load_digits

    digits = load_digits()
    picture = Picture(size=(SIDE, SIDE))
    images = [
        picture.from_array(image[None])
        for image in np.minimum(digits.images * 16, 255).astype(np.uint8)
    ]
    names = [f"{row:06d}" for row in range(len(images))]
    source = Source(digits.target.astype(np.int64), names, {}, images.__getitem__)
    # Each writer's digits stand together: the last third is of other writers.
    split = 2 * len(images) // 3
    rows = np.arange(len(images))
    return Images(
        "scikit-learn's digits (Fashion-MNIST is not installed)",
        source.select(rows[:split]),
        source.select(rows[split:]),
        tuple(map(str, range(10))),
    )
