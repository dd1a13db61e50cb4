"""How images reach a net whose embeddings are wanted: as its own reader says, or the caller."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from caffe_metric.data.identity.transform import CENTRE
from caffe_metric.data.identity.workers import Decoder
from caffe_metric.deployment import preprocess
from caffe_metric.layers.identity_data import PARAMETERS, open_reader
from caffe_metric.lint import sources
from caffe_metric.nets import roles
from caffe_metric.support.errors import UserError
from caffe_metric.training.trunks import picture_of


def of_folder(folder) -> dict:
    """The settings in a deployed net's folder, {} where it holds none. Raises UserError."""
    given = preprocess.read(folder)
    if given is None:
        return {}
    settings = {"scale": given.scale, "crop_size": given.crop, "gray": given.channels == 1}
    if given.mean_file:
        settings["mean_file"] = str(Path(folder, given.mean_file))
    elif given.mean_value:
        settings["mean_value"] = given.mean_value
    if given.resize or not given.crop:
        settings["width"], settings["height"] = given.resize or (given.width, given.height)
    return settings


def of_net(net, reader) -> dict:
    """IdentityData's parameters for images as a net's reader takes them, as far as it says.

    reader: its data layer, None for a net with `input:`. The size of a Data layer's images is that
    of its database, where it is at hand. An Input says sides, which images are not made to fit.
    """
    settings, _ = picture_of(net, reader)
    if reader is None or reader.type == "Input":
        return {"gray": settings.get("gray", False)}
    if reader.type == "Data":
        channels, height, width = sources.image(reader) or (None, None, None)
        if width:
            settings.update(width=width, height=height, gray=channels == 1)
    return {name: value for name, value in settings.items() if name != "mirror"}


def root_of(reader, data) -> str:
    """The folder that the files of a list are relative to: the list's own, or the net's."""
    if reader is None or not Path(data).is_file():
        return ""
    root = ""
    if reader.type == "ImageData":
        root = reader.image_data_param.root_folder
    elif roles.kind(reader) == "IdentityData":
        root = str(roles.python_parameters(reader).get("root", ""))
    return root if root and Path(root).is_dir() else ""


class Batches:
    """The images of a data set as a net takes them, batch by batch, in their order.

    settings: IdentityData's parameters. Raises UserError.
    """

    def __init__(self, data, settings, rows, workers=2):
        try:
            parameters = PARAMETERS.parse({**settings, "source": str(data)})
            images, transform = open_reader(parameters)
            self.shape = tuple(transform.shape(images.load(0).shape))
        except ValueError as error:
            raise UserError(f"{data}: {error}") from error
        self.labels, self.names = images.labels, images.names
        self.rows = min(rows, len(self.labels))
        shape = (self.rows, *self.shape)
        self._decoder = Decoder(self._job, images.load, transform, shape, workers)

    def __iter__(self):
        """Arrays [rows, channels, height, width], float32; the last may repeat the first images."""
        batch = np.empty((self.rows, *self.shape), np.float32)
        self._decoder.seek(0)
        try:
            for _ in range(len(self)):
                try:
                    self._decoder.next(batch)
                except ValueError as error:
                    raise UserError(str(error)) from error
                yield batch
        finally:
            self._decoder.close()

    def __len__(self):
        return -(-len(self.labels) // self.rows)

    def _job(self, number):
        rows = np.arange(number * self.rows, (number + 1) * self.rows) % len(self.labels)
        places = np.full((self.rows, 2), CENTRE)
        return rows, places, np.zeros(self.rows, bool), self.labels[rows]
