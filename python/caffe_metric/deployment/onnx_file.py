"""A net of stock Caffe layers as ONNX, by onnx.helper.

The first axis is the batch, of any length. Shapes of the others are those that Caffe computed.
Raises UserError for a layer, or a parameter of one, that has no ONNX equal here.
"""

from __future__ import annotations

import numpy as np

from caffe_metric.deployment.onnx_layers import CONVERTERS
from caffe_metric.support.errors import UserError

OPSET = 13
IR_VERSION = 8


def to_onnx(net, weights, shapes, output):
    """An onnx.ModelProto.

    net: a NetParameter of stock layers that begins with one Input. weights: {layer: [arrays]}.
    shapes: {blob: shape} for a batch of one. output: the blob that is wanted.
    """
    from onnx import TensorProto, checker, helper

    writer = Writer(weights, shapes)
    for layer in net.layer:
        convert = CONVERTERS.get(layer.type)
        if convert is None:
            raise UserError(f"layer '{layer.name}': ONNX has no equal of {layer.type} here")
        writer.layer = layer
        convert(writer, layer)
    source = net.layer[0].top[0]
    graph = helper.make_graph(
        writer.nodes,
        net.name or "net",
        [helper.make_tensor_value_info(source, TensorProto.FLOAT, _batch(shapes[source]))],
        [
            helper.make_tensor_value_info(
                writer.now[output], TensorProto.FLOAT, _batch(shapes[output])
            )
        ],
        list(writer.initializers.values()),
    )
    if writer.now[output] != output:
        _rename(graph, writer.now[output], output)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="caffe-metric"
    )
    model.ir_version = IR_VERSION
    checker.check_model(model)
    return model


def _batch(shape):
    return ["N", *(int(side) for side in shape[1:])]


def _rename(graph, old, new):
    """An in-place layer's last version gets the blob's own name, which the first one has."""
    spare = f"{new}/first"
    names = {new: spare, old: new}
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)


class Writer:
    """Nodes and constants; `now` is the tensor that a blob's name means at this point."""

    def __init__(self, weights, shapes):
        self.weights, self.shapes = weights, shapes
        self.nodes, self.initializers, self.now = [], {}, {}
        self.layer = None
        self._count, self._versions = 0, {}

    def bottom(self, number=0):
        return self.now[self.layer.bottom[number]]

    def shape(self, number=0):
        """Of a bottom, for a batch of one."""
        return self.shapes[self.layer.bottom[number]]

    def blobs(self):
        return [np.asarray(blob, np.float32) for blob in self.weights[self.layer.name]]

    def top(self, number=0):
        """A new tensor for a top."""
        blob = self.layer.top[number]
        self._versions[blob] = self._versions.get(blob, -1) + 1
        version = self._versions[blob]
        self.now[blob] = f"{blob}/{version}" if version else blob
        return self.now[blob]

    def part(self):
        """A new tensor between two nodes of one layer."""
        self._count += 1
        return f"{self.layer.name}/part{self._count}"

    def constant(self, array, what):
        from onnx import numpy_helper

        name = f"{self.layer.name}/{what}"
        self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def node(self, kind, inputs, output, **attributes):
        from onnx import helper

        name = f"{self.layer.name}/{kind}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name, **attributes))
        return output

    def channels(self, array):
        """One number a channel, so that it broadcasts over a bottom's shape."""
        return np.reshape(array, (-1,) + (1,) * (len(self.shape()) - 2)).astype(np.float32)

    def refuse(self, what):
        raise UserError(
            f"layer '{self.layer.name}': {self.layer.type} with {what} has no ONNX here"
        )
