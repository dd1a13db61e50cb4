"""The part of a net that makes embeddings, and how it reads images."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from google.protobuf import text_format

from caffe_metric.nets import netfile, roles
from caffe_metric.nets.phases import TRAIN
from caffe_metric.nets.prune import ancestors, layers_of_phase
from caffe_metric.support.errors import UserError

# They end a net, or only look at it.
ENDS = ("Accuracy", "Silence", "ArgMax")


@dataclasses.dataclass
class Trunk:
    """blob: the images' blob; embedding: the blob at the end; layers: what lies between.

    picture: how IdentityData reads an image, as its parameters. source: where the net itself reads
    from, "" where it does not.
    """

    blob: str
    embedding: str
    layers: list
    picture: dict
    source: str = ""

    def text(self, window: float = 0.999) -> str:
        """The layers as prototxt. window: BatchNorm's moving_average_fraction, where unset."""
        parts = []
        for layer in self.layers:
            if layer.type == "BatchNorm":
                if not layer.batch_norm_param.HasField("moving_average_fraction"):
                    layer.batch_norm_param.moving_average_fraction = window
                # Its averages are no weights; Caffe itself sees to that, older ones do not.
                while len(layer.param) < 3:
                    layer.param.add(lr_mult=0, decay_mult=0)
            inside = text_format.MessageToString(layer)
            parts.append(
                "layer {\n" + "".join(f"  {line}\n" for line in inside.splitlines()) + "}\n"
            )
        return "".join(parts)

    def test_reader(self, source) -> str:
        """A layer that reads such images in phase TEST, for `extract`; "" where Caffe has none."""
        where, given = Path(source), self.picture
        numbers = [f"scale: {given.get('scale', 1)}"]
        mean = given.get("mean_value", [])
        numbers += [f"mean_value: {one}" for one in (mean if isinstance(mean, list) else [mean])]
        if given.get("crop_size"):
            numbers.append(f"crop_size: {given['crop_size']}")
        if (where / "data.mdb").exists():
            kind, own = "Data", f'data_param {{ source: "{source}" batch_size: 100 backend: LMDB }}'
        elif where.is_file() and where.suffix in ("", ".txt", ".lst", ".list"):
            size = f"new_height: {given.get('height', 0)} new_width: {given.get('width', 0)}"
            color = "is_color: false" if given.get("gray") else ""
            kind = "ImageData"
            own = f'image_data_param {{ source: "{source}" batch_size: 100 {size} {color} }}'
        else:
            return ""
        return (
            f'layer {{ name: "test_data" type: "{kind}" top: "{self.blob}" top: "label"\n'
            f"  include {{ phase: TEST }} transform_param {{ {' '.join(numbers)} }}\n  {own} }}\n"
        )


def read_trunk(path, embedding: str | None = None) -> Trunk:
    """The trunk of a net for training or deployment: without its data, its losses and heads.

    embedding: the blob at the end; None: what the first loss or layer of ours reads, before a Norm
    or the layer that makes logits, or the net's one output. Raises UserError.
    """
    return trunk_of(netfile.read(str(path)), path, embedding)


def trunk_of(net, path, embedding: str | None = None) -> Trunk:
    """The same of a NetParameter; path: what messages call it."""
    return trunk_until(net, path, [embedding or _embedding(path, layers_of_phase(net, TRAIN))])


def trunk_until(net, path, blobs) -> Trunk:
    """The layers that some blobs come from; the last of them is the trunk's embedding."""
    layers, blob = layers_of_phase(net, TRAIN), blobs[-1]
    kept = ancestors(layers, blobs)
    sources = [layer for layer in kept if not layer.bottom]
    between = [layer for layer in kept if layer.bottom]
    if not between:
        made = ", ".join(sorted({top for layer in layers for top in layer.top}))
        raise UserError(f"{path}: no layer makes the blob '{blob}'; there are {made}")
    if len(sources) > 1 or (not sources and len(net.input) != 1):
        raise UserError(f"{path}: '{blob}' must come from one blob of images")
    images = sources[0].top[0] if sources else net.input[0]
    picture, source = picture_of(net, sources[0] if sources else None)
    return Trunk(images, blob, between, picture, source)


def _embedding(path, layers) -> str:
    for layer in layers:
        row = roles.row_of(layer)
        if row is not None and row.head:
            return _before(layers, layer.bottom[0], ("Norm",))
        if layer.type == "SoftmaxWithLoss":
            return _before(layers, layer.bottom[0], ("InnerProduct",))
    read = {bottom for layer in layers for bottom in layer.bottom if bottom not in layer.top}
    ends = [
        top
        for layer in layers
        if layer.bottom and layer.type not in ENDS
        for top in layer.top
        if top not in read
    ]
    ends = list(dict.fromkeys(ends))
    if len(ends) != 1:
        raise UserError(f"{path}: has the outputs {', '.join(ends) or 'none'}: say by --embedding")
    return ends[0]


def _before(layers, blob, kinds) -> str:
    """What the layer of one of these kinds reads that makes the blob; else the blob.

    The rows of all ranks are those that GatherBatch reads.
    """
    for layer in reversed(layers):
        if blob not in layer.top or blob in layer.bottom:
            continue
        if roles.kind(layer) == "GatherBatch":
            blob = layer.bottom[0]
        elif roles.kind(layer) in kinds:
            blob, kinds = layer.bottom[0], ()
    return blob


def picture_of(net, reader):
    """IdentityData's parameters for images as the trunk reads them; and its source."""
    shape = []
    if reader is None:
        shape = list(net.input_shape[0].dim) if net.input_shape else list(net.input_dim)
    elif reader.type == "Input":
        shape = list(reader.input_param.shape[0].dim)
    elif roles.kind(reader) == "IdentityData":
        given = roles.python_parameters(reader)
        kept = (
            "width",
            "height",
            "gray",
            "crop_size",
            "mirror",
            "mean_value",
            "mean_file",
            "scale",
        )
        return {name: given[name] for name in kept if name in given}, given.get("source", "")
    if shape:
        if len(shape) != 4:
            return {}, ""
        given = {"height": shape[2], "width": shape[3]}
        return ({**given, "gray": True} if shape[1] == 1 else given), ""
    transform, given = reader.transform_param, {}
    for name in ("scale", "crop_size", "mirror", "mean_file"):
        if transform.HasField(name):
            given[name] = getattr(transform, name)
    if transform.mean_value:
        given["mean_value"] = list(transform.mean_value)
    if reader.type == "ImageData":
        own = reader.image_data_param
        if own.new_height:
            given.update(height=own.new_height, width=own.new_width)
        if not own.is_color:
            given["gray"] = True
        return given, own.source
    return given, reader.data_param.source if reader.type == "Data" else ""
