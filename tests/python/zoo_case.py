"""A net of another fork, through `caffe-metric modernize`, in Caffe: forward and ten steps."""

from __future__ import annotations

import numpy as np
from caffe_metric import commands, lint
from caffe_metric.nets import modelfile
from caffe_metric.support import child

import caffe

ROWS, CLASSES = 12, 4
LABELS = np.arange(ROWS) // 2 % CLASSES

# Images and labels of a batch, in TRAIN and in TEST.
DATA = """
layer { name: "data" type: "HDF5Data" top: "data" top: "label"
  hdf5_data_param { source: "images.txt" batch_size: 12 } }
"""
# A trunk that ends in a feature of 6 numbers.
TRUNK = (
    DATA
    + """
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "PReLU" bottom: "conv1" top: "conv1" }
layer { name: "fc5" type: "InnerProduct" bottom: "conv1" top: "fc5"
  param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  inner_product_param { num_output: 6 weight_filler { type: "xavier" } } }
"""
)
SOLVER = """
net: "new.prototxt"
base_lr: 0.01 lr_policy: "step" gamma: 0.1 stepsize: 1000 momentum: 0.9 weight_decay: 0.0005
max_iter: 10 display: 0 snapshot: 0 snapshot_after_train: false random_seed: 1 solver_mode: CPU
"""


class Case:
    """A net's text in a folder with data, models and a solver."""

    def __init__(self, folder, text, models=None, seed=7):
        import h5py

        self.folder = folder
        rng = np.random.default_rng(seed)
        self.images = rng.normal(size=(ROWS, 3, 6, 6)).astype(np.float32)
        with h5py.File(folder / "images.h5", "w") as file:
            file["data"], file["label"] = self.images, LABELS.astype(np.float32)
        (folder / "images.txt").write_text("images.h5\n")
        (folder / "old.prototxt").write_text(text)
        (folder / "solver.prototxt").write_text(SOLVER)
        self.weights = []
        if models is not None:
            self.weights = [
                "--weights",
                str(folder / "old.caffemodel"),
                str(folder / "new.caffemodel"),
            ]
            write_model(folder / "old.caffemodel", models)

    def modernize(self, *more):
        """The exit status."""
        return commands.main(
            [
                "modernize",
                str(self.folder / "old.prototxt"),
                "-o",
                str(self.folder / "new.prototxt"),
                *self.weights,
                *map(str, more),
            ]
        )

    def text(self) -> str:
        return (self.folder / "new.prototxt").read_text()

    def blobs(self, phase=caffe.TEST, *names):
        """{blob: values} after a forward pass of the new net."""

        def run():
            net = caffe.Net("new.prototxt", phase, **self._loaded())
            net.forward()
            return {name: blob.data.copy() for name, blob in net.blobs.items()}

        return self._in_child(run)

    def params(self):
        """{layer: blobs} of the new net, with its model."""

        def run():
            net = caffe.Net("new.prototxt", caffe.TRAIN, **self._loaded())
            return {
                name: [blob.data.copy() for blob in blobs] for name, blobs in net.params.items()
            }

        return self._in_child(run)

    def train(self, iterations=10):
        """The losses of ten steps by the solver that lies beside the net, which lint passes."""
        wrong = [
            str(found)
            for found in lint.check(str(self.folder / "new.prototxt"))
            if found.severity == "error"
        ]
        assert not wrong

        def run():
            solver = caffe.get_solver("solver.prototxt")
            if self.weights:
                solver.net.copy_from("new.caffemodel")
            losses = []
            for _ in range(iterations):
                solver.step(1)
                losses.append(
                    {
                        name: float(solver.net.blobs[name].data.ravel()[0])
                        for name in solver.net.outputs
                    }
                )
            return losses

        losses = self._in_child(run)
        assert all(np.isfinite(value) for loss in losses for value in loss.values()), losses
        return losses

    def _loaded(self):
        return {"weights": "new.caffemodel"} if self.weights else {}

    def _in_child(self, function):
        import os

        def inside():
            os.chdir(self.folder)
            return function()

        outcome = child.run(inside, timeout=300)
        assert outcome.ok, outcome.last_words
        return outcome.value


def write_model(path, models):
    """A caffemodel of {layer: blobs}."""
    made = modelfile.message()()
    for name, blobs in models.items():
        layer = made.layer.add(name=name)
        for values in blobs:
            blob = layer.blobs.add()
            blob.shape.dim.extend(np.shape(values))
            blob.data.extend(np.ravel(values).tolist())
    path.write_bytes(made.SerializeToString())


def random_weights(**shapes):
    """{layer: blobs} for {layer: [shapes]}."""
    rng = np.random.default_rng(3)
    return {
        name: [rng.normal(0, 0.5, shape).astype(np.float32) for shape in found]
        for name, found in shapes.items()
    }


# Of TRUNK. Sums of float32 numbers agree to TOLERANCE.
MODEL = random_weights(conv1=[(4, 3, 3, 3), (4,)], relu1=[(4,)], fc5=[(6, 64), (6,)])
TOLERANCE = {"rtol": 2e-4, "atol": 2e-5}


def report(capsys):
    """What a command printed."""
    return capsys.readouterr().out
