"""Models and solver states as Caffe writes them, binary protobuf or HDF5, opened for change.

Both kinds of file are seen as lists of blobs: a model as blobs by layer, a solver state as its
history. What is not touched is written back as it was read.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError

from caffe_metric.nets import modelfile, netschema
from caffe_metric.support.errors import UserError
from caffe_metric.support.files import replacing
from caffe_metric.support.strings import without_suffix

# Numbers that are put into a message at once.
CHUNK = 1 << 16


def is_hdf5(path) -> bool:
    return str(path).endswith(".h5")


def is_state(path) -> bool:
    """Whether a file's name is that of a solver state."""
    return Path(without_suffix(str(path), ".h5")).suffix == ".solverstate"


def shapes(path) -> dict[str, list[tuple[int, ...]]]:
    """{layer: shapes of its blobs} of a model."""
    with open_model(path) as model:
        return model.shapes()


def open_model(path):
    """A context manager of the model in a file; see BinaryModel."""
    return _open(path, BinaryModel, Hdf5Model)


def open_state(path):
    """A context manager of the solver state in a file; see BinaryState."""
    return _open(path, BinaryState, Hdf5State)


@contextlib.contextmanager
def _open(path, binary, hdf5):
    if not is_hdf5(path):
        yield binary(path)
        return
    import h5py

    if not Path(path).is_file():
        raise UserError(f"{path}: No such file or directory")
    try:
        file = h5py.File(path, "r", driver="core", backing_store=False)
    except OSError as error:
        raise UserError(f"{path}: no HDF5 file") from error
    file.close()
    # In memory, so that changes touch no file before they are saved.
    with h5py.File(path, "a", driver="core", backing_store=False) as file:
        yield hdf5(path, file)


def _read(path, message):
    try:
        message.ParseFromString(Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except DecodeError as error:
        raise UserError(f"{path}: no file that Caffe has written") from error
    return message


def _shape(blob) -> tuple[int, ...]:
    """Of an old blob, which always has four numbers, without the ones in front."""
    if blob.HasField("shape"):
        return tuple(blob.shape.dim)
    shape = (blob.num, blob.channels, blob.height, blob.width)
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return shape


def _fill(blob, values: np.ndarray) -> None:
    blob.Clear()
    blob.shape.dim.extend(values.shape)
    flat = values.ravel()
    for begin in range(0, flat.size, CHUNK):  # a list of all would take ten times their memory
        blob.data.extend(flat[begin : begin + CHUNK].tolist())


def _array(blob) -> np.ndarray:
    values = blob.double_data if len(blob.double_data) else blob.data
    return np.array(values, np.float32).reshape(_shape(blob))


class _Binary:
    def __init__(self, path, content):
        self.path = path
        self.content = _read(path, content)

    def save(self, path) -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(self.content.SerializeToString())


class BinaryModel(_Binary):
    """A model of any Caffe; an old one (`layers`) is read as today's, as Caffe does."""

    def __init__(self, path):
        super().__init__(path, modelfile.message()())
        try:
            modelfile.upgraded(self.content)
        except ValueError as error:
            raise UserError(f"{path}: {error}") from error
        if not self.content.layer:
            raise UserError(f"{path}: no layers")
        self._arrays = {}

    def _layer(self, name):
        return next(layer for layer in self.content.layer if layer.name == name)

    def shapes(self):
        return {layer.name: [_shape(blob) for blob in layer.blobs] for layer in self.content.layer}

    def value(self, layer: str, place: int) -> float:
        return self._layer(layer).blobs[place].data[0]

    def put(self, layer: str, place: int, values: np.ndarray) -> None:
        """Replaces a blob."""
        _fill(self._layer(layer).blobs[place], values)

    def insert(self, layer: str, place: int, values: np.ndarray) -> None:
        """Adds a blob before the one at that place."""
        found = self._layer(layer).blobs
        found.add()
        for later in range(len(found) - 1, place, -1):
            found[later].CopyFrom(found[later - 1])
        _fill(found[place], values)

    def drop(self, layer: str, place: int) -> None:
        del self._layer(layer).blobs[place]

    def arrays(self) -> dict[str, list[np.ndarray]]:
        """{layer: its blobs}, of the layers that have any."""
        self._arrays = {
            layer.name: [_array(blob) for blob in layer.blobs]
            for layer in self.content.layer
            if layer.blobs
        }
        return dict(self._arrays)

    def set_arrays(self, arrays: dict[str, list[np.ndarray]]) -> None:
        """Holds these layers from now on, and no others.

        A list that `arrays` gave stands for the blobs as they are in the file: those of an old one
        have four numbers for a shape, which Caffe compares by other rules.
        """
        made = type(self.content)(name=self.content.name)
        for name, values in arrays.items():
            layer = made.layer.add(name=name)
            if values is self._arrays.get(name):
                layer.blobs.extend(self._layer(name).blobs)
                continue
            for value in values:
                _fill(layer.blobs.add(), value)
        self.content = made


class BinaryState(_Binary):
    def __init__(self, path):
        super().__init__(path, netschema.load().state())

    @property
    def iteration(self) -> int:
        return self.content.iter

    @property
    def model(self) -> str:
        return self.content.learned_net

    @model.setter
    def model(self, path: str) -> None:
        self.content.learned_net = path

    def history(self) -> list:
        return list(self.content.history)

    def zeros(self, shape):
        """A new blob for the history."""
        blob = type(self.content)().history.add()
        _fill(blob, np.zeros(shape, np.float32))
        return blob

    def set_history(self, blobs) -> None:
        kept = [type(blob).FromString(blob.SerializeToString()) for blob in blobs]
        del self.content.history[:]
        self.content.history.extend(kept)


class _Hdf5:
    def __init__(self, path, file):
        self.path, self.file = path, file

    def save(self, path) -> None:
        self.file.flush()
        with replacing(path) as temporary:
            temporary.write_bytes(self.file.id.get_file_image())


class Hdf5Model(_Hdf5):
    def shapes(self):
        groups = self.file.get("data", {})
        return {
            name: [groups[name][key].shape for key in sorted(groups[name], key=int)]
            for name in groups
        }

    def value(self, layer, place) -> float:
        return float(self.file["data"][layer][str(place)][...].flat[0])

    def put(self, layer, place, values) -> None:
        group = self.file["data"][layer]
        if str(place) in group:
            del group[str(place)]
        group.create_dataset(str(place), data=np.float32(values))

    def insert(self, layer, place, values) -> None:
        group = self.file["data"][layer]
        for later in range(len(group), place, -1):
            group.move(str(later - 1), str(later))
        self.put(layer, place, values)

    def drop(self, layer, place) -> None:
        group = self.file["data"][layer]
        del group[str(place)]
        for later in range(place, len(group)):
            group.move(str(later + 1), str(later))

    def arrays(self) -> dict[str, list[np.ndarray]]:
        groups = self.file.get("data", {})
        return {
            name: [groups[name][str(place)][...] for place in range(len(shapes))]
            for name, shapes in self.shapes().items()
            if shapes
        }

    def set_arrays(self, arrays) -> None:
        del self.file["data"]
        groups = self.file.create_group("data")
        for name, values in arrays.items():
            group = groups.create_group(name)
            for place, value in enumerate(values):
                group.create_dataset(str(place), data=np.float32(value))


class Hdf5State(_Hdf5):
    @property
    def iteration(self) -> int:
        return int(self.file["iter"][...].flat[0])

    @property
    def model(self) -> str:
        if "learned_net" not in self.file:
            return ""
        text = self.file["learned_net"][()]
        return (text.decode() if isinstance(text, bytes) else str(text)).rstrip("\0")

    @model.setter
    def model(self, path: str) -> None:
        if "learned_net" in self.file:
            del self.file["learned_net"]
        # A string of fixed length with its final 0, as H5LTmake_dataset_string writes it.
        self.file["learned_net"] = np.bytes_(path.encode() + b"\0")

    def history(self) -> list:
        group = self.file["history"]
        return [group[str(i)][...] for i in range(len(group))]

    def zeros(self, shape):
        return np.zeros(shape, np.float32)

    def set_history(self, blobs) -> None:
        del self.file["history"]
        group = self.file.create_group("history")
        for number, blob in enumerate(blobs):
            group.create_dataset(str(number), data=blob)
