"""Numbers from Caffe's own random generator, which pycaffe does not expose.

A net with one DummyData layer draws from the generator that `random_seed` of the solver governs.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
from caffe.proto import caffe_pb2
from google.protobuf import json_format, text_format

import caffe
from caffe_metric.nets import schema


def dummy_net(shape, filler: caffe_pb2.FillerParameter) -> caffe.Net:
    """A net whose one blob, "data", is filled anew by each forward pass."""
    net = caffe_pb2.NetParameter(name="caffe_metric_generator")
    layer = net.layer.add(name="data", type="DummyData", top=["data"])
    layer.dummy_data_param.shape.add(dim=shape)
    layer.dummy_data_param.data_filler.add().CopyFrom(filler)
    handle, name = tempfile.mkstemp(suffix=".prototxt")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text_format.MessageToString(net))
        return caffe.Net(name, caffe.TRAIN)
    finally:
        Path(name).unlink()


class KeySource:
    """Keys of random draws: 48 bits from Caffe's generator, so that `random_seed` governs them."""

    def __init__(self):
        # A float holds integers up to 2^24.
        filler = caffe_pb2.FillerParameter(type="uniform", min=0, max=2**24)
        self._net = dummy_net([2], filler)

    def __call__(self) -> int:
        self._net._forward(0, 0)
        high, low = (int(number) % 2**24 for number in self._net.blobs["data"].data)
        return high << 24 | low


def reseed(*place: int) -> None:
    """Sets Caffe's generator to a state that is a function of some numbers."""
    caffe.set_random_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))


def fill(array: np.ndarray, filler: caffe_pb2.FillerParameter) -> None:
    """Fills an array as Caffe fills a blob of its shape; fillers of constants included."""
    if filler.type == "constant":
        array[...] = filler.value
        return
    net = dummy_net(array.shape, filler)
    net._forward(0, 0)
    array[...] = net.blobs["data"].data


def parse_filler(values: dict, what: str) -> caffe_pb2.FillerParameter:
    """A FillerParameter of Caffe, from its fields by name. Raises ValueError."""
    if not isinstance(values, dict):
        raise ValueError(f"{what} is {values!r}, must be a mapping such as {{type: xavier}}")
    filler = caffe_pb2.FillerParameter()
    schema.refuse_unknown(values, [field.name for field in filler.DESCRIPTOR.fields])
    try:
        json_format.ParseDict(values, filler)
    except json_format.ParseError as error:
        raise ValueError(f"{what}: {error}") from None
    return filler
