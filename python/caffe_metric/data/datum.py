"""caffe.Datum without Caffe: the message that LMDB holds and the Data layer reads."""

from __future__ import annotations

import functools

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool

from caffe_metric.support.protobuf import message_class

# name, number, type, repeated: as in every caffe.proto since 2014.
_FIELDS = [
    ("channels", 1, "INT32", False),
    ("height", 2, "INT32", False),
    ("width", 3, "INT32", False),
    ("data", 4, "BYTES", False),
    ("label", 5, "INT32", False),
    ("float_data", 6, "FLOAT", True),
    ("encoded", 7, "BOOL", False),
]


@functools.lru_cache(maxsize=None)
def datum_class():
    """The message class, in a descriptor pool of its own: caffe_pb2 can be imported beside it."""
    file = descriptor_pb2.FileDescriptorProto(
        name="caffe_metric/datum.proto", package="caffe", syntax="proto2"
    )
    message = file.message_type.add(name="Datum")
    kind = descriptor_pb2.FieldDescriptorProto
    for name, number, type_name, repeated in _FIELDS:
        message.field.add(
            name=name,
            number=number,
            type=getattr(kind, f"TYPE_{type_name}"),
            label=kind.LABEL_REPEATED if repeated else kind.LABEL_OPTIONAL,
        )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_class(pool, "caffe.Datum")


def encode(image, label):
    """Serialises an image and its label.

    image: uint8 [channels, height, width], or bytes: an encoded file (PNG, JPEG), kept as it is.
    """
    if isinstance(image, bytes):
        return datum_class()(data=image, label=label, encoded=True).SerializeToString()
    channels, height, width = image.shape
    return datum_class()(
        channels=channels, height=height, width=width, data=image.tobytes(), label=label
    ).SerializeToString()


def decode(value):
    """The (image, label) of a serialised Datum; the image as `encode` takes it."""
    datum = datum_class().FromString(value)
    if datum.encoded:
        return datum.data, datum.label
    shape = datum.channels, datum.height, datum.width
    if datum.float_data:
        return np.array(datum.float_data, np.float32).reshape(shape), datum.label
    return np.frombuffer(datum.data, np.uint8).reshape(shape), datum.label


def label(value):
    """The label of a serialised Datum, a memoryview; the image is stepped over."""
    place, end = 0, len(value)
    while place < end:
        tag = value[place]
        place += 1
        if tag & 7 not in (0, 2):  # numbers of float_data: the label stands before them
            break
        number, shift, byte = 0, 0, 128
        while byte > 127:
            byte = value[place]
            number |= (byte & 127) << shift
            place, shift = place + 1, shift + 7
        if tag == 0x28:  # field 5, a varint
            return number - (1 << 64) if number >> 63 else number
        if tag & 7 == 2:
            place += number
    return decode(bytes(value))[1]
