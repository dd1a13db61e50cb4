"""What happens to an image before it is the net's input: read from the training net's data layer.

A pixel x of channel c becomes (x - mean_c) * scale, as in Caffe's data layers.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np

from caffe_metric.nets import roles
from caffe_metric.nets.roles import kind
from caffe_metric.support.errors import UserError
from caffe_metric.support.files import replacing

FILE = "preprocess.json"


@dataclasses.dataclass
class Preprocess:
    """The numbers of preprocess.json.

    input, output     names of blobs
    channels, height, width  of the net's input
    order             of the channels: BGR, or gray
    resize            [width, height] that images are resized to first, or None
    crop              side of the square of the centre that is cut out, 0 for none
    mean_value        a number a channel, [] for none; mean_file: of a mean image, beside this file
    scale             multiplied by last
    unit_output       whether the output has length 1; where not, the host divides
    source            the data layer that it was read from, "" where there was none
    """

    input: str
    output: str
    channels: int
    height: int
    width: int
    order: str
    resize: list | None = None
    crop: int = 0
    mean_value: list = dataclasses.field(default_factory=list)
    mean_file: str = ""
    scale: float = 1.0
    unit_output: bool = False
    source: str = ""

    def write(self, folder) -> None:
        with replacing(Path(folder, FILE)) as path:
            path.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n", encoding="utf-8")

    def apply(self, image: np.ndarray, folder=".") -> np.ndarray:
        """The input, float32, of an image uint8 [channels, height, width], BGR or gray."""
        array = image.astype(np.float32)
        if self.mean_file:
            mean = read_mean(Path(folder, self.mean_file))
            if mean.shape[1:] != array.shape[1:]:
                raise UserError(f"{self.mean_file}: {mean.shape}, the image is {array.shape}")
            array -= mean
        if self.crop:
            top, left = ((side - self.crop) // 2 for side in array.shape[1:])
            if min(top, left) < 0:
                raise UserError(f"an image of {array.shape[1:]} is smaller than crop {self.crop}")
            array = array[:, top : top + self.crop, left : left + self.crop]
        if self.mean_value:
            array = array - np.asarray(self.mean_value, np.float32)[:, None, None]
        wanted = (self.channels, self.height, self.width)
        if array.shape != wanted:
            raise UserError(f"an image gives the shape {array.shape}, the net takes {wanted}")
        return array * np.float32(self.scale)

    def picture(self):
        """How images are read."""
        from caffe_metric.data.picture import Picture

        size = tuple(self.resize) if self.resize else None
        if size is None and not self.crop:
            size = (self.width, self.height)
        return Picture(size, self.channels == 1)


def read(folder) -> Preprocess | None:
    """That of a deployed net's folder; None where there is none. Raises UserError."""
    path = Path(folder, FILE)
    if not path.is_file():
        return None
    try:
        return Preprocess(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: {error}") from error


def of_layer(source, shape, names) -> tuple[Preprocess, str]:
    """What a data layer does, and the path of its mean image ("" for none).

    source: a layer or None; shape: channels, height, width of the input; names: input, output.
    """
    channels, height, width = (int(side) for side in shape)
    order = "gray" if channels == 1 else "BGR"
    made = Preprocess(*names, channels, height, width, order)
    if source is None or source.type == "Input":
        return made, ""
    made.source = f"{source.name} ({kind(source)})"
    if source.type == "Python":
        return made, _identity(made, roles.python_parameters(source))
    given = source.transform_param
    made.crop, made.scale = given.crop_size, given.scale
    made.mean_value = _means(list(given.mean_value), channels)
    if source.type == "ImageData" and source.image_data_param.new_width:
        made.resize = [source.image_data_param.new_width, source.image_data_param.new_height]
    return made, given.mean_file


def _identity(made, given) -> str:
    """IdentityData, whose parameters stand in its param_str."""
    made.crop = int(given.get("crop_size", 0))
    made.scale = float(given.get("scale", 1))
    means = given.get("mean_value")
    made.mean_value = _means([] if means is None else np.ravel(means).tolist(), made.channels)
    if given.get("width"):
        made.resize = [int(given["width"]), int(given["height"])]
    return str(given.get("mean_file", ""))


def _means(values, channels):
    values = [float(value) for value in values]
    return values * channels if len(values) == 1 else values


def read_mean(path) -> np.ndarray:
    """A mean image, [channels, height, width], of a .binaryproto or .npy. Raises UserError."""
    if path.suffix == ".npy":
        from caffe_metric.support.arrays import read_npy

        array = read_npy(path).astype(np.float32)
        return array.reshape(array.shape[-3:]) if array.ndim >= 3 else array.reshape(-1, 1, 1)
    from caffe.proto import caffe_pb2

    try:
        blob = caffe_pb2.BlobProto.FromString(path.read_bytes())
    except Exception as error:
        raise UserError(f"{path}: no mean image ({error})") from error
    shape = list(blob.shape.dim) or [blob.num, blob.channels, blob.height, blob.width]
    return np.array(blob.data, np.float32).reshape(shape[-3:])
