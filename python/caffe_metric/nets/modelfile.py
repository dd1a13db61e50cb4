"""The message of a model file: layers by name, and their blobs, whatever Caffe wrote it.

A layer's parameters are passed over: their numbers mean other things in other forks. They are kept
as they are in a model that is written again.
"""

from __future__ import annotations

import functools

from google.protobuf import descriptor_pb2, descriptor_pool

from caffe_metric.support.protobuf import message_class

_FLOAT, _DOUBLE, _INT64, _INT32, _STRING, _MESSAGE = 2, 1, 3, 5, 9, 11
_OPTIONAL, _REPEATED = 1, 3
_MESSAGES = {
    "Shape": [("dim", 1, _INT64, _REPEATED, "")],
    "Blob": [
        ("num", 1, _INT32, _OPTIONAL, ""),
        ("channels", 2, _INT32, _OPTIONAL, ""),
        ("height", 3, _INT32, _OPTIONAL, ""),
        ("width", 4, _INT32, _OPTIONAL, ""),
        ("data", 5, _FLOAT, _REPEATED, ""),
        ("shape", 7, _MESSAGE, _OPTIONAL, "Shape"),
        ("double_data", 8, _DOUBLE, _REPEATED, ""),
    ],
    "Layer": [
        ("name", 1, _STRING, _OPTIONAL, ""),
        ("type", 2, _STRING, _OPTIONAL, ""),
        ("blobs", 7, _MESSAGE, _REPEATED, "Blob"),
    ],
    "OldestLayer": [("name", 1, _STRING, _OPTIONAL, "")],
    # Of 2013 and 2014: V1LayerParameter. In the year before, all stood one message deeper.
    "OldLayer": [
        ("oldest", 1, _MESSAGE, _OPTIONAL, "OldestLayer"),
        ("name", 4, _STRING, _OPTIONAL, ""),
        ("blobs", 6, _MESSAGE, _REPEATED, "Blob"),
    ],
    "Model": [
        ("name", 1, _STRING, _OPTIONAL, ""),
        ("layers", 2, _MESSAGE, _REPEATED, "OldLayer"),
        ("layer", 100, _MESSAGE, _REPEATED, "Layer"),
    ],
}


@functools.lru_cache(maxsize=1)
def message() -> type:
    """The class of the whole file. Of an old model, `layers` are to be read, see `upgraded`."""
    package = "caffe_metric_model"
    file = descriptor_pb2.FileDescriptorProto(name="model.proto", package=package, syntax="proto2")
    for name, fields in _MESSAGES.items():
        made = file.message_type.add(name=name)
        for field, number, kind, label, owner in fields:
            one = made.field.add(name=field, number=number, type=kind, label=label)
            if owner:
                one.type_name = f".{package}.{owner}"
            if field in ("data", "double_data"):
                one.options.packed = True
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_class(pool, f"{package}.Model")


def upgraded(model) -> None:
    """Turns an old model's layers into today's, as Caffe does. ValueError for one of 2013."""
    if model.layer:
        return
    for old in model.layers:
        if old.HasField("oldest"):
            raise ValueError("a model of 2013: run Caffe's upgrade_net_proto_binary first")
        new = model.layer.add(name=old.name)
        new.blobs.extend(old.blobs)
    del model.layers[:]
