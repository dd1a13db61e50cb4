"""Weights that layers keep outside of Caffe's blobs, each rank its share: files of them.

A layer that does so says SHARDED, and has `first`, the number of its first row, `weights` and
`history`, arrays of its rows, and `rate`. A file is an .npy of [2, C, K]: the weights of all C
rows, and their momentum; any number of ranks goes on from it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from caffe_metric.nets import blobs
from caffe_metric.parallel.ranks import PART
from caffe_metric.support.errors import UserError


class Shards:
    """The layers of a pycaffe net that keep shares of rows, on one of the `ranks`.

    All ranks call each method; the files are rank 0's.
    """

    def __init__(self, net, ranks):
        layers = zip(net._layer_names, net.layers)
        self._layers = {name: layer for name, layer in layers if getattr(layer, "SHARDED", 0)}
        self._ranks = ranks

    def __bool__(self):
        return bool(self._layers)

    @property
    def names(self) -> list[str]:
        """The layers."""
        return list(self._layers)

    def set_rate(self, rate) -> None:
        for layer in self._layers.values():
            layer.rate = rate

    def write(self, folder, stem) -> list[Path]:
        """Writes a file a layer on rank 0. Raises OSError there, once all ranks have sent."""
        paths, error = [], None
        for number, layer in enumerate(self._layers.values()):
            paths.append(Path(folder, f"{stem}_classes{number}.npy"))
            try:
                self._write(paths[-1], layer)
            except OSError as raised:
                error = raised
        if error:
            raise error
        return paths

    def read(self, paths) -> None:
        """Fills the layers from files of `write`. Raises UserError on all ranks."""
        for number, (name, layer) in enumerate(self._layers.items()):
            path = paths[number] if number < len(paths) else None
            shape = (2, self._count(layer), layer.weights.shape[1])
            found, fault = None, ""
            if not self._ranks.rank:
                if path is None:
                    fault = f"the snapshot has no classes of layer '{name}'"
                else:
                    found = np.load(path, mmap_mode="r")
                    if found.shape != shape:
                        fault = f"{path}: holds {found.shape}, layer '{name}' has {shape}"
            self._refuse(fault)
            self._spread(layer, found, (layer.weights, layer.history))

    def read_model(self, path) -> list[str]:
        """Fills layers from a model whose layer of that name has such weights; their names."""
        filled = []
        for name, layer in self._layers.items():
            found, fault = None, ""
            shape = (self._count(layer), layer.weights.shape[1])
            if not self._ranks.rank:
                with blobs.open_model(path) as model:
                    found = next(iter(model.arrays().get(name, [])), None)
                if found is not None and found.shape != shape:
                    fault = f"{path}: layer '{name}' has {found.shape}, {shape} in the net"
            self._refuse(fault)
            if self._ranks.share_object(found is not None):
                self._spread(layer, None if found is None else found[None], (layer.weights,))
                filled.append(name)
        return filled

    def _count(self, layer):
        counts = self._ranks.gather(np.array([len(layer.weights)]))
        return int(counts.sum())

    def _refuse(self, fault):
        if fault := self._ranks.share_object(fault):
            raise UserError(fault)

    def _parts(self, layer):
        """(rank, first row, end) of all parts that are sent at a time, in the order of the rows."""
        bounds = self._ranks.gather(np.array([layer.first, layer.first + len(layer.weights)]))
        rows = max(1, PART // layer.weights.shape[1])
        for rank, (first, last) in enumerate(bounds):
            for start in range(first, last, rows):
                yield rank, start, min(start + rows, last)

    def _write(self, path, layer):
        shape = (2, self._count(layer), layer.weights.shape[1])
        file, error = None, None
        try:
            if not self._ranks.rank:
                file = path.open("wb")
                header = {"descr": layer.weights.dtype.str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
        except OSError as raised:
            error = raised
        for array in (layer.weights, layer.history):
            for rank, start, end in self._parts(layer):
                part = np.empty((end - start, shape[2]), array.dtype)
                own = array[start - layer.first : end - layer.first]
                self._ranks.carry(own if rank == self._ranks.rank else part, part, rank, 0)
                try:
                    if file and not error:
                        file.write(part.data)
                except OSError as raised:
                    error = raised
        if file:
            file.close()
        if error:
            raise error

    def _spread(self, layer, found, arrays):
        for number, array in enumerate(arrays):
            for rank, start, end in self._parts(layer):
                part = np.empty((end - start, array.shape[1]), array.dtype)
                if not self._ranks.rank:
                    part[...] = found[number, start:end]
                self._ranks.carry(part, part, 0, rank)
                if rank == self._ranks.rank:
                    array[start - layer.first : end - layer.first] = part
