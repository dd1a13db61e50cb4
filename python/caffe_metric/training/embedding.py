"""Embeddings of a data set by a net that is being trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import caffe
from caffe_metric.data.identity.transform import CENTRE
from caffe_metric.data.identity.workers import Decoder
from caffe_metric.layers.identity_data import PARAMETERS, open_reader
from caffe_metric.support.errors import UserError
from caffe_metric.training.trunks import trunk_of

BATCH = 100
INPUT = """
layer {{ name: "caffe_metric_images" type: "Input" top: "{}"
  input_param {{ shape {{ {} }} }} }}
"""


class EmbeddingNet:
    """The trunk of a training net in phase TEST, over a data set, with the weights of that moment.

    message: the training net's NetParameter. source: an LMDB, a list, a folder or an IDX file;
    images are read as the training net reads them, but for random crops and mirrors. root: of the
    files of a list. folder: for its prototxt. Raises UserError.
    """

    def __init__(self, message, train_net, source, folder, root="", workers=2):
        trunk = trunk_of(message, "the net")
        try:
            given = {name: value for name, value in trunk.picture.items() if name != "mirror"}
            given.update(source=str(source), root=root)
            images, transform = open_reader(PARAMETERS.parse(given))
        except ValueError as error:
            raise UserError(f"{source}: {error}") from error
        self.labels, self._rows = images.labels, min(BATCH, len(images.labels))
        shape = (self._rows, *transform.shape(images.load(0).shape))
        path = Path(folder, "embedding.prototxt")
        sides = " ".join(f"dim: {side}" for side in shape)
        path.write_text(INPUT.format(trunk.blob, sides) + trunk.text())
        self._net = caffe.Net(str(path), caffe.TEST)
        self._train_net, self._blob, self._images = train_net, trunk.embedding, trunk.blob
        self._decoder = Decoder(self._job, images.load, transform, shape, workers)

    def __call__(self) -> np.ndarray:
        """float32 [N, D], in the order of the source."""
        self._net.share_with(self._train_net)
        self._decoder.seek(0)
        found = []
        for _ in range(-(-len(self.labels) // self._rows)):
            self._decoder.next(self._net.blobs[self._images].data)
            self._net.forward()
            found.append(self._net.blobs[self._blob].data.reshape(self._rows, -1).copy())
        return np.concatenate(found)[: len(self.labels)]

    def _job(self, number):
        rows = np.arange(number * self._rows, (number + 1) * self._rows) % len(self.labels)
        centre = np.full((self._rows, 2), CENTRE)
        return rows, centre, np.zeros(self._rows, bool), self.labels[rows]
