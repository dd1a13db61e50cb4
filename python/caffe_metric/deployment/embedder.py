"""A deployed net as a function: images in, embeddings out."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from caffe_metric.deployment import preprocess
from caffe_metric.nets import netfile
from caffe_metric.nets.filling import fill
from caffe_metric.support import child
from caffe_metric.support.errors import UserError

TEST = 1


class Embedder:
    """faces = Embedder("deploy.prototxt", "deploy.caffemodel")(images)

    net, weights  of one input and one output, such as `caffe-metric deploy` writes
    blob          the output; without it the net's own
    batch         images a forward pass

    Images are arrays of numbers that the net takes, or paths of files, which are prepared as
    preprocess.json beside the net says.

    The net is built in a child process first, because Caffe ends the process in which it meets an
    error. Raises UserError with Caffe's last words. Needs Caffe.
    """

    def __init__(self, net, weights, blob: str | None = None, batch: int = 64):
        for path in (net, weights):
            if not Path(path).is_file():
                raise UserError(f"{path}: no such file")
        netfile.quiet_caffe()
        netfile.find_python_layers(str(net))
        outcome = child.run(lambda: _build(net, weights, blob)[1:])
        if not outcome.ok:
            raise UserError(f"{net}: {outcome.last_words}")
        self.batch, self._folder = batch, Path(net).resolve().parent
        self._net, self.input, self.blob, self.shape = _build(net, weights, blob)

    def __call__(self, images) -> np.ndarray:
        """Embeddings, float32 [N, D], of images: an array [N, *shape], or a list of paths."""
        if len(images) and isinstance(images[0], (str, Path)):
            load = self._prepared
        else:
            load = np.asarray
            shape = np.shape(images)
            if shape[1:] != self.shape:
                raise ValueError(f"images have shape {shape}, must have (N, {self._dims()})")
        rows = [self._forward(load(part)) for part in self._batches(images)]
        return np.concatenate(rows) if rows else np.empty((0, self._width()), np.float32)

    def _prepared(self, paths) -> np.ndarray:
        prepared = preprocess.read(self._folder)
        if prepared is None:
            raise UserError(f"{self._folder / preprocess.FILE}: no such file; give arrays")
        picture = prepared.picture()
        return np.stack([prepared.apply(picture.read(path), self._folder) for path in paths])

    def _dims(self) -> str:
        return ", ".join(map(str, self.shape))

    def _width(self) -> int:
        return int(np.prod(self._net.blobs[self.blob].data.shape[1:], dtype=np.int64))

    def _batches(self, images):
        for start in range(0, len(images), self.batch):
            yield images[start : start + self.batch]

    def _forward(self, images) -> np.ndarray:
        self._net.blobs[self.input].reshape(*images.shape)
        self._net.blobs[self.input].data[...] = images
        self._net.forward()
        return self._net.blobs[self.blob].data.reshape(len(images), -1).copy()


def _build(net, weights, blob):
    """The net, its input's name, its output's name, and the shape of an image."""
    import caffe

    built = caffe.Net(str(net), TEST)
    fill(built, weights)
    if len(built.inputs) != 1:
        raise ValueError(f"the net has {len(built.inputs)} inputs, must have 1")
    if blob is None and len(built.outputs) != 1:
        raise ValueError(f"the net has the outputs {', '.join(built.outputs)}: choose by `blob`")
    blob = blob or built.outputs[0]
    if blob not in built.blobs:
        raise ValueError(f"the net has no blob '{blob}'; it has {', '.join(built.blobs)}")
    shape = tuple(built.blobs[built.inputs[0]].data.shape[1:])
    return built, built.inputs[0], blob, shape
