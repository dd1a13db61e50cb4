"""BatchNorm's averages: what lint and train say of them, and measuring them anew."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")

from caffe_metric.nets import batch_norm, blobs
from training_nets import DATA, FC, SOFTMAX, write

NORMALISED = FC + 'layer { name: "bn" type: "BatchNorm" bottom: "fc" top: "fc" }\n'
FITTING = NORMALISED.replace(
    'top: "fc" }\n', 'top: "fc" batch_norm_param { moving_average_fraction: 0.9 } }\n'
)
TRAIN = ("train", "--solver", "solver.prototxt")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write(tmp_path, DATA + NORMALISED + SOFTMAX, max_iter=100)


@pytest.mark.slow
def test_lint_and_train_say_that_the_averages_are_old(folder, command):
    status, out, _ = command("lint", "net.prototxt")
    assert (status, "layer 'bn': BatchNorm averages over its last 1000 iterations" in out) == (
        0,
        True,
    )
    status, out, _ = command("lint", "net.prototxt", "--solver", "solver.prototxt")
    assert "averages over its last 1000 iterations, of 100: " in out
    assert "moving_average_fraction: 0.9 fits" in out
    status, _, err = command(*TRAIN)
    assert (status, err.count("\n")) == (0, 1)
    assert "warning: BatchNorm in 1 layer(s), 'bn' the first, averages over its last 1000" in err
    write(folder, DATA + FITTING + SOFTMAX, max_iter=100)
    assert command("lint", "net.prototxt", "--solver", "solver.prototxt")[1].endswith(
        "nothing to complain about\n"
    )
    assert command(*TRAIN)[2] == ""
    (folder / "solver.prototxt").write_text("max_iter: 20000")
    write(folder, DATA + NORMALISED + SOFTMAX, max_iter=20000)
    status, out, _ = command("lint", "net.prototxt", "--solver", "solver.prototxt")
    assert out.endswith("nothing to complain about\n")


@pytest.mark.parametrize(
    ("iterations", "fraction"), [(50, 0.9), (400, 0.95), (5000, 0.996), (100_000, 0.999)]
)
def test_a_fitting_fraction_has_no_complaint(iterations, fraction):
    assert batch_norm.fitting(iterations) == fraction
    assert 1 / (1 - fraction) <= max(10, iterations / 20) + 1e-6


@pytest.mark.slow
def test_averages_are_measured_anew(folder, command):
    """They become the mean and the variance of what the layer reads, by the weights as they are."""
    assert command(*TRAIN)[0] == 0
    arguments = ("small_iter_100.caffemodel", "new.caffemodel", "--net", "net.prototxt")
    status, out, err = command("weights", *arguments, "--batch-norm", "data.lmdb", "--batches", 3)
    assert (status, err) == (0, "")
    assert "measured 1 BatchNorm layer(s) over 3 batches of 64 of data.lmdb" in out
    from caffe_metric.data.identity.source import open_images

    source = open_images("data.lmdb")
    images = np.stack([source.load(row).ravel() for row in range(64)]) * np.float32(0.01)
    with blobs.open_model("new.caffemodel") as model:
        layers = {layer.name: layer.blobs for layer in model.content.layer}
    weights, bias = (np.array(blob.data) for blob in layers["fc"])
    mean, variance, count = (np.array(blob.data) for blob in layers["bn"])
    features = images @ weights.reshape(8, 25).T + bias
    assert count == 3
    np.testing.assert_allclose(mean / count, features.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(variance / count, features.var(0, ddof=1), rtol=1e-3)
    # What else the model holds is as it was.
    with blobs.open_model("small_iter_100.caffemodel") as old:
        before = {layer.name: layer.blobs for layer in old.content.layer}
    assert [np.array(b.data).tolist() for b in before["out"]] == [
        np.array(b.data).tolist() for b in layers["out"]
    ]


def test_a_net_without_batch_norm_is_one_line(folder, command):
    assert command(*TRAIN)[0] == 0
    write(folder, DATA + FC + SOFTMAX)
    arguments = ("small_iter_100.caffemodel", "new.caffemodel", "--net", "net.prototxt")
    status, _, err = command("weights", *arguments, "--batch-norm", "data.lmdb")
    assert (status, "has no BatchNorm layer" in err) == (1, True)
