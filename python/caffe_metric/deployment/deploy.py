"""A net of stock layers that gives the numbers of a training net, and the proof."""

from __future__ import annotations

import tempfile

import numpy as np

from caffe_metric.nets import netfile
from caffe_metric.nets.filling import fill
from caffe_metric.nets.prune import making
from caffe_metric.nets.roles import kind, row_of
from caffe_metric.nets.stock import to_stock
from caffe_metric.support.errors import UserError

TEST = 1
IMAGES = 8  # random ones, that both nets are compared on
TOLERANCE = 1e-5  # relative to the largest output: a few float32 roundings


def embedding_blob(net):
    """The blob that a net's first metric-learning layer reads. Raises UserError."""
    for layer in net.layer:
        row = row_of(layer)
        if row is not None and row.head:
            return layer.bottom[0]
    raise UserError("the net has no layer of ours: say by --blob what to compute")


def deploy(net_path, weights, blob, folder, shape=None):
    """Writes deploy.prototxt and deploy.caffemodel into a folder; returns the parity report."""
    import caffe

    caffe.set_mode_cpu()
    net = netfile.read(str(net_path))
    netfile.find_python_layers(str(net_path))
    blob = blob or embedding_blob(net)
    begin, input_name = _with_input(net, blob, shape)
    before_path = folder / "before.prototxt"
    before_path.write_text(str(begin))
    before = caffe.Net(str(before_path), TEST)
    fill(before, weights)
    shapes = {name: tuple(values.data.shape) for name, values in before.blobs.items()}
    old = [layer for layer in begin.layer if layer.type != "Input"]
    rewritten = to_stock(old, shapes)
    after_message = type(net)(name=net.name)
    entry = after_message.layer.add(name="input", type="Input", top=[input_name])
    entry.input_param.shape.add().CopyFrom(begin.layer[0].input_param.shape[0])
    after_message.layer.extend(rewritten.layers)
    after_path = folder / "deploy.prototxt"
    after_path.write_text(str(after_message))
    after = caffe.Net(str(after_path), TEST)
    for name, (source, change) in rewritten.weights.items():
        if name in after.params:
            for target, value in zip(
                after.params[name], change([b.data for b in before.params[source]])
            ):
                target.data[...] = value
    after.save(str(folder / "deploy.caffemodel"))
    return _parity(before, after, input_name, blob)


def _with_input(net, blob, shape):
    """The part of a net that computes `blob` in phase TEST, from an Input; and the input's name.

    shape: channels, height and width of an image, or None: as the Data layer reads them.
    """
    kept = making(net, blob)
    for layer in kept:
        row = row_of(layer)
        if blob in layer.top and row is not None and row.loss:
            raise UserError(f"layer '{layer.name}': a loss is not deployed; choose another --blob")
    sources = [layer for layer in kept if not layer.bottom]
    if not kept or len(sources) != 1:
        raise UserError(f"blob '{blob}' must come from one Data or Input layer")
    out = type(net)(name=net.name)
    entry = out.layer.add(name="input", type="Input", top=[sources[0].top[0]])
    entry.input_param.shape.add().dim.extend([1, *(shape or _image_shape(sources[0]))])
    for layer in kept:
        if layer.bottom:
            copy = out.layer.add()
            copy.CopyFrom(layer)
            if kind(copy) == "MarginInnerProduct":
                label = out.layer[0].top
                if copy.bottom[1] not in label:
                    out.layer[0].top.append(copy.bottom[1])
                    out.layer[0].input_param.shape.add().dim.append(1)
    return out, sources[0].top[0]


def _image_shape(layer):
    """Channels, height and width that a Data or Input layer gives."""
    if layer.type == "Input":
        return list(layer.input_param.shape[0].dim)[1:]
    from caffe.proto import caffe_pb2

    import caffe

    net = caffe_pb2.NetParameter()
    net.layer.add().CopyFrom(layer)
    with tempfile.NamedTemporaryFile("w", suffix=".prototxt") as file:
        file.write(str(net))
        file.flush()
        return list(caffe.Net(file.name, TEST).blobs[layer.top[0]].data.shape)[1:]


def _parity(before, after, input_name, blob):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(IMAGES, *before.blobs[input_name].data.shape[1:]))
    outputs = []
    for net in (before, after):
        net.blobs[input_name].reshape(*values.shape)
        for name in net.blobs:
            if name in net.inputs and name != input_name:
                net.blobs[name].reshape(IMAGES)
        net.blobs[input_name].data[...] = values
        net.forward()
        outputs.append(net.blobs[blob].data.astype(np.float64))
    difference = float(np.abs(outputs[0] - outputs[1]).max())
    largest = float(np.abs(outputs[0]).max())
    return {
        "blob": blob,
        "numbers": int(outputs[0][0].size),
        "images": IMAGES,
        "greatest_difference": difference,
        "largest_output": largest,
        "equal": difference <= TOLERANCE * max(largest, 1e-30),
    }
