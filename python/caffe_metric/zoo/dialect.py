"""The words of all forks at once: Caffe's messages, this project's, and those of forks.proto."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from google.protobuf import descriptor_pb2, descriptor_pool

from caffe_metric import suite
from caffe_metric.nets import descriptors, netschema

# Those of Caffe 1.0, whatever Caffe is at hand.
STOCK_TYPES = frozenset(
    [
        "AbsVal",
        "Accuracy",
        "ArgMax",
        "BatchNorm",
        "BatchReindex",
        "Bias",
        "BNLL",
        "Clip",
        "Concat",
        "ContrastiveLoss",
        "Convolution",
        "Crop",
        "Data",
        "Deconvolution",
        "Dropout",
        "DummyData",
        "Eltwise",
        "ELU",
        "Embed",
        "EuclideanLoss",
        "Exp",
        "Filter",
        "Flatten",
        "HDF5Data",
        "HDF5Output",
        "HingeLoss",
        "Im2col",
        "ImageData",
        "InfogainLoss",
        "InnerProduct",
        "Input",
        "Log",
        "LRN",
        "LSTM",
        "LSTMUnit",
        "MemoryData",
        "MultinomialLogisticLoss",
        "MVN",
        "Parameter",
        "Pooling",
        "Power",
        "PReLU",
        "Python",
        "Reduction",
        "ReLU",
        "Reshape",
        "RNN",
        "Scale",
        "Sigmoid",
        "SigmoidCrossEntropyLoss",
        "Silence",
        "Slice",
        "Softmax",
        "SoftmaxWithLoss",
        "Split",
        "SPP",
        "Swish",
        "TanH",
        "Threshold",
        "Tile",
        "WindowData",
    ]
)


@dataclass(frozen=True)
class Dialect:
    """layer: the class LayerParameter that knows every fork's fields.

    plain: NetParameter of Caffe and this project alone. complete: whether it has all of Caffe's
    own fields.
    """

    layer: type
    plain: type
    complete: bool


def types() -> frozenset[str]:
    """The layer types that a net may have when it is rewritten."""
    own = {row.type for row in suite.NATIVE}
    return STOCK_TYPES | own | (netschema.load().layer_types or frozenset())


@functools.lru_cache(maxsize=1)
def load() -> Dialect:
    """All words, whatever Caffe is at hand."""
    known = netschema.load()
    file = descriptor_pb2.FileDescriptorProto()
    known.net.DESCRIPTOR.file.CopyToProto(file)
    for message in descriptors.load()[descriptors.FORKS].message_type:
        _merge(file, message)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    layer = netschema.message_class(pool, "caffe.LayerParameter")
    return Dialect(layer, known.net, known.complete)


def _merge(file, message) -> None:
    """Adds a message of forks.proto, or what the file's own of its name lacks."""
    message = type(message).FromString(message.SerializeToString())
    for field in message.field:
        if field.type_name:
            field.type_name = field.type_name.replace(".caffe_forks.", ".caffe.")
    own = next((other for other in file.message_type if other.name == message.name), None)
    if own is None:
        file.message_type.extend([message])
        return
    fields = {field.name for field in own.field}
    enums = {enum.name for enum in own.enum_type}
    own.field.extend(field for field in message.field if field.name not in fields)
    own.enum_type.extend(enum for enum in message.enum_type if enum.name not in enums)


def foreign(message) -> list[str]:
    """The fields of forks that a layer still sets, as dotted names."""
    found = []
    plain = load().plain.DESCRIPTOR.fields_by_name["layer"].message_type
    _foreign(message, plain, "", found)
    return found


def _foreign(message, plain, path, found) -> None:
    for field, value in message.ListFields():
        own = plain.fields_by_name.get(field.name) if plain is not None else None
        name = f"{path}{field.name}"
        if own is None:
            found.append(name)
        elif field.message_type is not None:
            for part in value if isinstance(value, list) or hasattr(value, "add") else [value]:
                _foreign(part, own.message_type, f"{name}.", found)
