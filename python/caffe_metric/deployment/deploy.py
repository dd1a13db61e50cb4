"""A net of stock layers that gives the numbers of a training net, and the proof.

All of it is made in a folder that is thrown away unless every runtime agrees.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from caffe_metric import suite
from caffe_metric.deployment import preprocess, runtimes
from caffe_metric.deployment.fold import fold
from caffe_metric.nets import netfile, roles
from caffe_metric.nets.filling import fill
from caffe_metric.nets.prune import making
from caffe_metric.nets.roles import kind
from caffe_metric.nets.stock import last_norm, to_stock, without
from caffe_metric.support import child
from caffe_metric.support.errors import UserError

TEST = 1
IMAGES = 8  # random ones, that all nets are compared on

# How weights are drawn matters to a training only.
FILLERS = ("weight_filler", "bias_filler", "filler")
WITH_FILLERS = (
    "bias_param",
    "convolution_param",
    "inner_product_param",
    "prelu_param",
    "scale_param",
)


@dataclasses.dataclass
class Order:
    """What is wanted. net, weights: files; blob: the output; shape: [channels, height, width]."""

    net: str
    weights: str
    blob: str | None = None
    shape: list | None = None
    norm: str = "keep"
    fold: bool = False
    onnx: bool = False


def embedding_blob(net):
    """The blob that a net's first metric-learning layer reads; of a softmax, what its logits do.

    Raises UserError.
    """
    for layer in net.layer:
        row = roles.row_of(layer)
        if row is not None and row.head:
            return layer.bottom[0]
    makers = {top: layer for layer in net.layer for top in layer.top}
    for layer in net.layer:
        logits = makers.get(layer.bottom[0]) if layer.type == "SoftmaxWithLoss" else None
        if logits is not None and logits.type == "InnerProduct":
            return logits.bottom[0]
    raise UserError("the net has no layer of ours: say by --blob what to compute")


def deploy(order: Order, folder) -> dict:
    """Writes a deployed net into a folder; returns the parity report, which it writes, too.

    deploy.prototxt, deploy.caffemodel, preprocess.json, README.md, and by `onnx` deploy.onnx.
    Raises UserError.
    """
    import caffe

    caffe.set_mode_cpu()
    folder = Path(folder)
    net = netfile.read(str(order.net))
    netfile.find_python_layers(str(order.net))
    blob = order.blob or embedding_blob(net)
    source, kept = trunk(net, blob)
    kept, blob = without(kept, blob, lambda layer: roles.kind(layer) == "GatherBatch")
    dropped = ""
    if order.norm == "drop":
        dropped = last_norm(kept, blob)
        kept, blob = without(kept, blob, lambda layer: layer.name == dropped)
    unit = bool(not dropped and last_norm(kept, blob))
    shape = order.shape or image_shape(source, net)
    entry = source.top[0] if source is not None else net.input[0]
    before = _with_input(net, entry, kept, shape)
    old = _build(before, folder / "before.prototxt")
    fill(old, order.weights)
    shapes = {name: tuple(values.data.shape) for name, values in old.blobs.items()}
    rewritten = to_stock(kept, shapes, blob)
    weights = {
        name: change([data.data for data in old.params[origin]] if origin else [])
        for name, (origin, change) in rewritten.weights.items()
        if not origin or origin in old.params
    }
    layers = rewritten.layers
    if order.fold:
        layers = fold(layers, weights, rewritten.output)
    after = _with_input(net, entry, layers, shape)
    new = _build(after, folder / "deploy.prototxt")
    for name, targets in new.params.items():
        for target, value in zip(targets, weights[name]):
            target.data[...] = np.reshape(value, target.data.shape)
    new.save(str(folder / "deploy.caffemodel"))
    shapes = {name: tuple(values.data.shape) for name, values in new.blobs.items()}
    wanted = ["caffe", "opencv"]
    if order.onnx:
        from caffe_metric.deployment.onnx_file import to_onnx

        model = to_onnx(after, weights, shapes, rewritten.output)
        (folder / "deploy.onnx").write_bytes(model.SerializeToString())
        wanted.append("onnxruntime")
    prepared = _preprocess(order, source, shape, (entry, rewritten.output), unit, folder)
    prepared.write(folder)
    images = _images(prepared, folder)
    expected = _forward(old, entry, blob, images)
    report = {
        "blob": rewritten.output,
        "numbers": int(np.prod(expected.shape[1:])),
        "images": IMAGES,
        "tolerance": runtimes.TOLERANCE,
        "largest_output": float(np.abs(expected).max()),
        **runtimes.parity(folder, rewritten.output, images, expected, wanted),
    }
    ran = [report[name] for name in wanted if report[name] is not None]
    report["equal"] = all(one["equal"] for one in ran)
    (folder / "parity.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (folder / "before.prototxt").unlink()
    return report


def trunk(net, blob):
    """(data layer or None, the layers after it that make a blob). Raises UserError."""
    known = sorted({top for layer in net.layer for top in layer.top})
    if blob not in known:
        near = difflib.get_close_matches(blob, known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"it has {', '.join(known)}"
        raise UserError(f"the net has no blob '{blob}': {hint}")
    kept = making(net, blob)
    for layer in kept:
        row = roles.row_of(layer)
        if blob in layer.top and (layer.type.endswith("Loss") or (row and row.loss)):
            raise UserError(f"layer '{layer.name}': a loss is not deployed; choose another --blob")
    sources = [layer for layer in kept if not layer.bottom]
    inputs = [name for name in net.input if any(name in layer.bottom for layer in kept)]
    labels = _label_bottoms(kept)
    sources = [layer for layer in sources if layer.top[0] not in labels]
    inputs = [name for name in inputs if name not in labels]
    if len(sources) + len(inputs) != 1:
        names = ", ".join([f"'{layer.name}'" for layer in sources] + inputs) or "none"
        raise UserError(f"blob '{blob}' comes from these data: {names}; it must be one")
    return (sources[0] if sources else None), [layer for layer in kept if layer.bottom]


def _label_bottoms(layers):
    """The blobs that only carry labels, of layers of ours."""
    found = set()
    for layer in layers:
        if roles.row_of(layer) is not None:
            found |= {
                layer.bottom[place]
                for place, role in roles.bottom_roles(layer).items()
                if role == suite.LABEL
            }
    return found


def image_shape(source, net) -> list[int]:
    """Channels, height and width that a data layer, or `input`, gives. Raises UserError."""
    if source is None:
        if net.input_shape:
            return [int(side) for side in net.input_shape[0].dim][1:]
        return list(net.input_dim)[1:4]
    if source.type == "Input":
        return [int(side) for side in source.input_param.shape[0].dim][1:]
    if kind(source) == "IdentityData":
        given = roles.python_parameters(source)
        side = int(given.get("crop_size", 0))
        if side or (given.get("width") and given.get("height")):
            sides = [side, side] if side else [int(given["height"]), int(given["width"])]
            return [1 if given.get("gray") else 3, *sides]
    alone = type(net)()
    alone.layer.add().CopyFrom(source)
    outcome = child.run(lambda: _data_shape(alone, source.top[0]))
    if not outcome.ok:
        raise UserError(
            f"layer '{source.name}' does not run here ({outcome.last_words}): give the shape of an "
            "image by --shape C,H,W"
        )
    return outcome.value


def _data_shape(net, top):
    with tempfile.TemporaryDirectory() as folder:
        built = _build(net, Path(folder, "data.prototxt"))
        return [int(side) for side in built.blobs[top].data.shape[1:]]


def _with_input(net, entry, layers, shape):
    """A net of an Input and some layers; a label that one of ours reads is a second input."""
    out = type(net)(name=net.name)
    first = out.layer.add(name="input", type="Input", top=[entry])
    first.input_param.shape.add().dim.extend([1, *shape])
    for label in sorted(_label_bottoms(layers)):
        first.top.append(label)
        first.input_param.shape.add().dim.append(1)
    for layer in layers:
        copy = out.layer.add()
        copy.CopyFrom(layer)
        for name in ("include", "exclude", "param", "phase", "loss_weight", "propagate_down"):
            copy.ClearField(name)
        for known, value in copy.ListFields():
            if known.name in WITH_FILLERS:
                for name in FILLERS:
                    if name in value.DESCRIPTOR.fields_by_name:
                        value.ClearField(name)
    return out


def _build(net, path):
    import caffe

    path.write_text(str(net), encoding="utf-8")
    return caffe.Net(str(path), TEST)


def _forward(net, entry, blob, images):
    net.blobs[entry].reshape(*images.shape)
    for name in net.inputs:
        if name != entry:
            net.blobs[name].reshape(len(images))
    net.blobs[entry].data[...] = images
    net.forward()
    return net.blobs[blob].data.astype(np.float64)


def _preprocess(order, source, shape, names, unit, folder):
    prepared, mean = preprocess.of_layer(source, shape, names)
    prepared.unit_output = unit
    if mean:
        path = Path(mean) if Path(mean).is_file() else Path(order.net).resolve().parent / mean
        if not path.is_file():
            raise UserError(f"{mean}: no such file; the data layer subtracts it")
        prepared.mean_file = f"mean{path.suffix}"
        shutil.copyfile(str(path), str(folder / prepared.mean_file))
    return prepared


def _images(prepared, folder):
    """Random images, as they are when they have been prepared."""
    rng = np.random.default_rng(0)
    shape = (IMAGES, prepared.channels, prepared.height, prepared.width)
    pixels = rng.uniform(0, 255, shape)
    means = np.asarray(prepared.mean_value or [0.0]).reshape(-1, 1, 1)
    if prepared.mean_file:
        means = preprocess.read_mean(folder / prepared.mean_file).mean()
    made = ((pixels - means) * prepared.scale).astype(np.float32)
    return made if prepared.source else rng.normal(size=shape).astype(np.float32)
