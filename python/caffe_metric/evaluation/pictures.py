"""The images that embeddings were made of: their raw pixels, and some of them to look at."""

from __future__ import annotations

import dataclasses

import numpy as np

from caffe_metric.data.identity.source import open_images
from caffe_metric.data.picture import Picture
from caffe_metric.evaluation.embeddings import Embeddings
from caffe_metric.support.errors import UserError
from caffe_metric.support.progress import Progress

SIDE = 32  # raw pixels are compared at this width and height, in gray
SHOWN = 96  # pixels, width and height of a picture in a report


class Pictures:
    """The images of a folder, a list, an IDX file or an LMDB.

    They belong to embeddings by name, where those have names, else by place.
    """

    def __init__(self, path):
        self._path = path
        self._gray = open_images(path, picture=Picture((SIDE, SIDE), True))
        self._small = open_images(path, picture=Picture((SHOWN, SHOWN)))

    def pixels(self, embeddings: Embeddings) -> Embeddings:
        """Raw pixels in the place of embeddings: gray, of one size. Raises UserError."""
        places = self._places(embeddings)
        rows = np.empty((len(places), SIDE * SIDE), np.float32)
        with Progress() as progress:
            for row in progress.each(range(len(rows)), f"pixels of {self._path}"):
                rows[row] = np.ravel(self._gray.load(places[row]))
        return dataclasses.replace(embeddings, title="pixels", rows=rows)

    def shown(self, embeddings: Embeddings, rows) -> dict[int, np.ndarray]:
        """{row: uint8 [channels, height, width], BGR} of some rows, small. Raises UserError."""
        places = self._places(embeddings)
        return {row: self._small.load(places[row]) for row in rows}

    def _places(self, embeddings):
        """The place of each row's image. Raises UserError where one has none."""
        names = embeddings.names
        if names is None:
            if len(self._gray.labels) != embeddings.total:
                raise UserError(
                    f"{self._path}: {len(self._gray.labels)} images; "
                    f"{embeddings.title} has {embeddings.total} rows"
                )
            return embeddings.place
        known = {name: at for at, name in enumerate(self._gray.names)}
        missing = [str(name) for name in names if str(name) not in known]
        if missing:
            raise UserError(f"{self._path}: no image '{missing[0]}', which {embeddings.title} has")
        return np.array([known[str(name)] for name in names])
