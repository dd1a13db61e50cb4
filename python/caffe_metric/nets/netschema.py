"""Message classes to read a net with, whatever Caffe is at hand: patched, stock or none.

pycaffe's own schema is taken where there is one; the layers of this project are added to it where
it lacks them. Without any Caffe there is a part of its schema, caffe_part.proto, enough for what
`lint` looks at: other fields are then passed over unchecked.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from google.protobuf import descriptor_pb2, descriptor_pool

from caffe_metric.nets import descriptors, schema
from caffe_metric.support.protobuf import message_class


@dataclass(frozen=True)
class NetSchema:
    """net, state: the classes NetParameter and SolverState. source: where they are from.

    complete: fields it does not know are mistakes. layer_types: those that Caffe has, None where
    that is not known.
    """

    net: type
    state: type
    source: str
    complete: bool
    layer_types: frozenset[str] | None


@functools.lru_cache(maxsize=1)
def load() -> NetSchema:
    """The best schema at hand."""
    try:
        from caffe.proto import caffe_pb2

        import caffe
    except ImportError:
        return without_caffe()
    types = frozenset(caffe.layer_type_list())
    ours = {field.name: field.number for field in schema.load().layer_fields}
    has = {field.name for field in caffe_pb2.LayerParameter.DESCRIPTOR.fields}
    if has >= set(ours):
        return NetSchema(caffe_pb2.NetParameter, caffe_pb2.SolverState, "pycaffe", True, types)
    return NetSchema(*extended(caffe_pb2.DESCRIPTOR), "pycaffe, extended", True, types)


def without_caffe() -> NetSchema:
    """The part of Caffe's schema in caffe_part.proto, and this project's messages."""
    part = _copy(descriptors.load()[descriptors.PART])
    return NetSchema(*_with_ours(part), "a part of Caffe's schema", False, None)


def extended(descriptor) -> tuple[type, type]:
    """NetParameter and SolverState of a stock Caffe's descriptor, with this project's layers."""
    file = descriptor_pb2.FileDescriptorProto()
    descriptor.CopyToProto(file)
    return _with_ours(file)


def _with_ours(file) -> tuple[type, type]:
    known = {message.name for message in file.message_type}
    for message in descriptors.load()[descriptors.OURS].message_type:
        if message.name == descriptors.FIELDS:
            layer = next(one for one in file.message_type if one.name == "LayerParameter")
            names = {field.name for field in layer.field}
            layer.field.extend(field for field in message.field if field.name not in names)
        elif message.name not in known:
            file.message_type.extend([message])
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_class(pool, "caffe.NetParameter"), message_class(pool, "caffe.SolverState")


def _copy(message):
    copy = type(message)()
    copy.CopyFrom(message)
    return copy
