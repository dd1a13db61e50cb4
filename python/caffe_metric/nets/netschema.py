"""Message classes to read a net with, whatever Caffe is at hand: patched, stock or none.

pycaffe's own schema is taken where there is one; the layers of this project are added to it where
it lacks them. Without any Caffe there is a small part of Caffe's schema, below, enough for what
`lint` looks at: other fields are then passed over unchecked.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from caffe_metric.nets import schema

# The part of Caffe's schema that is read here.
PART = """
message NetParameter {
  optional string name = 1;
  repeated V1LayerParameter layers = 2;
  repeated string input = 3;
  repeated int32 input_dim = 4;
  optional bool force_backward = 5;
  repeated BlobShape input_shape = 8;
  repeated LayerParameter layer = 100;
}
message V1LayerParameter { optional string name = 4; }
message BlobShape { repeated int64 dim = 1; }
message BlobProto {
  optional int32 num = 1;
  optional int32 channels = 2;
  optional int32 height = 3;
  optional int32 width = 4;
  repeated float data = 5;
  optional BlobShape shape = 7;
}
message SolverState {
  optional int32 iter = 1;
  optional string learned_net = 2;
  repeated BlobProto history = 3;
  optional int32 current_step = 4;
}
message ParamSpec {
  optional string name = 1;
  optional float lr_mult = 3 [default = 1.0];
  optional float decay_mult = 4 [default = 1.0];
}
message NetStateRule {
  enum Phase { TRAIN = 0; TEST = 1; }
  optional Phase phase = 1;
  optional int32 min_level = 2;
  optional int32 max_level = 3;
  repeated string stage = 4;
  repeated string not_stage = 5;
}
message FillerParameter {
  optional string type = 1;
  optional float value = 2 [default = 0];
}
message InputParameter { repeated BlobShape shape = 1; }
message DummyDataParameter {
  repeated FillerParameter data_filler = 1;
  repeated BlobShape shape = 6;
}
message DataParameter {
  enum DB { LEVELDB = 0; LMDB = 1; }
  optional string source = 1;
  optional uint32 batch_size = 4;
  optional uint32 rand_skip = 7;
  optional DB backend = 8;
}
message ImageDataParameter {
  optional string source = 1;
  optional uint32 batch_size = 4;
  optional uint32 rand_skip = 7;
  optional bool shuffle = 8 [default = false];
}
message MemoryDataParameter {
  optional uint32 batch_size = 1;
  optional uint32 channels = 2;
  optional uint32 height = 3;
  optional uint32 width = 4;
}
message HDF5DataParameter {
  optional string source = 1;
  optional uint32 batch_size = 2;
  optional bool shuffle = 3 [default = false];
}
message InnerProductParameter { optional uint32 num_output = 1; optional int32 axis = 5; }
message ConvolutionParameter { optional uint32 num_output = 1; }
message SliceParameter { optional int32 axis = 3; repeated uint32 slice_point = 2; }
message ConcatParameter { optional int32 axis = 2; }
message LossParameter {
  enum NormalizationMode { FULL = 0; VALID = 1; BATCH_SIZE = 2; NONE = 3; }
  optional NormalizationMode normalization = 3;
}
message PythonParameter {
  optional string module = 1;
  optional string layer = 2;
  optional string param_str = 3;
}
message LayerParameter {
  enum Phase { TRAIN = 0; TEST = 1; }
  optional string name = 1;
  optional string type = 2;
  repeated string bottom = 3;
  repeated string top = 4;
  repeated float loss_weight = 5;
  repeated ParamSpec param = 6;
  repeated BlobProto blobs = 7;
  repeated NetStateRule include = 8;
  repeated NetStateRule exclude = 9;
  optional Phase phase = 10;
  repeated bool propagate_down = 11;
  optional LossParameter loss_param = 101;
  optional ConcatParameter concat_param = 104;
  optional ConvolutionParameter convolution_param = 106;
  optional DataParameter data_param = 107;
  optional DummyDataParameter dummy_data_param = 109;
  optional HDF5DataParameter hdf5_data_param = 112;
  optional ImageDataParameter image_data_param = 115;
  optional InnerProductParameter inner_product_param = 117;
  optional MemoryDataParameter memory_data_param = 119;
  optional SliceParameter slice_param = 126;
  optional PythonParameter python_param = 130;
  optional InputParameter input_param = 143;
}
"""

LABELS = {"optional": 1, "repeated": 3}


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
    """The part above and this project's messages."""
    part = schema.parse(PART)
    file = descriptor_pb2.FileDescriptorProto(name="part.proto", package="caffe", syntax="proto2")
    for message in part.messages.values():
        file.message_type.append(_message(message))
    enums = {field.enum.name: field.enum for field in part.layer_fields if field.enum}
    layer = schema.Message("LayerParameter", part.layer_fields, enums)
    file.message_type.append(_message(layer))
    return NetSchema(*_with_ours(file), "a part of Caffe's schema", False, None)


def extended(descriptor) -> tuple[type, type]:
    """NetParameter and SolverState of a stock Caffe's descriptor, with this project's layers."""
    file = descriptor_pb2.FileDescriptorProto()
    descriptor.CopyToProto(file)
    return _with_ours(file)


def _with_ours(file) -> tuple[type, type]:
    ours = schema.load()
    known = {message.name for message in file.message_type}
    for message in ours.messages.values():
        if message.name not in known:
            file.message_type.append(_message(message))
    layer = next(message for message in file.message_type if message.name == "LayerParameter")
    names = {field.name for field in layer.field}
    layer.field.extend(_field(field) for field in ours.layer_fields if field.name not in names)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return _class(pool, "caffe.NetParameter"), _class(pool, "caffe.SolverState")


def _class(pool, name: str) -> type:
    descriptor = pool.FindMessageTypeByName(name)
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    return message_factory.MessageFactory(pool).GetPrototype(descriptor)  # protobuf before 4.22


def _message(message):
    made = descriptor_pb2.DescriptorProto(name=message.name)
    for enum in message.enums.values():
        entry = made.enum_type.add(name=enum.name)
        for name, number in enum.values.items():
            entry.value.add(name=name, number=number)
    made.field.extend(_field(field, message.name) for field in message.fields)
    for field in made.field:
        if message.name == "BlobProto" and field.name == "data":
            field.options.packed = True  # as Caffe writes it
    return made


def _field(field, owner: str = ""):
    made = descriptor_pb2.FieldDescriptorProto(
        name=field.name,
        number=field.number,
        label=LABELS["repeated" if field.repeated else "optional"],
    )
    kind = getattr(descriptor_pb2.FieldDescriptorProto, f"TYPE_{field.type.upper()}", None)
    if field.enum is not None:
        made.type = descriptor_pb2.FieldDescriptorProto.TYPE_ENUM
        made.type_name = f".caffe.{owner}.{field.enum.name}"
    elif kind is None:
        made.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
        made.type_name = f".caffe.{field.type}"
    else:
        made.type = kind
    if field.default is not None:
        text = field.default
        made.default_value = str(text).lower() if isinstance(text, bool) else str(text)
    return made
