"""ShardedMarginSoftmaxLoss against MarginSoftmaxLoss, and its files.

With one rank the two layers are one: values, gradients and updates are compared number by number.
What several ranks make of it stands in test_mpi_numbers.py.
"""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")

from caffe_metric.parallel.ranks import Ranks
from caffe_metric.parallel.shards import Shards
from caffe_metric.support.errors import UserError

import caffe

ROWS, FEATURES, CLASSES = 7, 5, 11
NET = """
force_backward: true
layer {{ name: "data" type: "Input" top: "x" top: "y" input_param {{
  shape {{ dim: {rows} dim: {features} }} shape {{ dim: {rows} }} }} }}
layer {{ name: "loss" type: "Python" bottom: "x" bottom: "y" top: "loss" top: "lambda" top: "right"
  loss_weight: 3 loss_weight: 0 loss_weight: 0
  python_param {{ module: "caffe_metric.layers" layer: "{kind}Layer" param_str: "{{{given}}}" }} }}
"""
PLAIN = f"num_output: {CLASSES}, weight_filler: {{type: xavier}}, update_rate: 0.1"
OPTIONS = [
    "",
    "type: TRIPLE, base: 5, gamma: 0.5",
    "scale: 8, normalize_features: true, angular_margin: 0.3, semihard: true",
    "normalize_weights: false, type: DOUBLE, label_smoothing: 0.2, ignore_label: 3",
    "sample_rate: 0.8, update_momentum: 0.5, update_decay: 0.01",
]


def build(folder, kind, given):
    path = folder / f"{kind}.prototxt"
    path.write_text(NET.format(rows=ROWS, features=FEATURES, kind=kind, given=given))
    caffe.set_random_seed(5)
    return caffe.Net(str(path), caffe.TRAIN)


def step(net, x, labels):
    net.blobs["x"].data[...], net.blobs["y"].data[...] = x, labels
    caffe.set_random_seed(9)
    net.forward()
    net.backward()
    numbers = [float(net.blobs[name].data) for name in ("loss", "lambda", "right")]
    return numbers, net.blobs["x"].diff.copy()


@pytest.mark.parametrize("more", OPTIONS)
def test_one_rank_is_margin_softmax_loss_with_own_update(tmp_path, rng, more):
    given = ", ".join(filter(None, [PLAIN, more]))
    sharded = build(tmp_path, "ShardedMarginSoftmaxLoss", given)
    peer = build(tmp_path, "MarginSoftmaxLoss", f"{given}, own_update: true")
    layer = sharded.layers[1]
    peer.params["loss"][0].data[...] = layer.weights
    for _ in range(4):
        x = rng.standard_normal((ROWS, FEATURES)).astype(np.float32)
        labels = rng.integers(0, CLASSES, ROWS)
        (numbers, dx), (wanted, wanted_dx) = step(sharded, x, labels), step(peer, x, labels)
        np.testing.assert_allclose(numbers, wanted, rtol=1e-5)
        np.testing.assert_allclose(dx, wanted_dx, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(layer.weights, peer.params["loss"][0].data, atol=1e-6)
        np.testing.assert_allclose(layer.history, peer.params["loss"][-2].data, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("num_output: 0", "num_output is 0"),
        (f"{PLAIN}, triplet: true", "triplet is set"),
        (f"{PLAIN}, sample_rate: 0", "sample_rate is 0"),
        (f"{PLAIN}, scales: 8", "scales"),
    ],
)
def test_bad_parameters(tmp_path, given, says):
    with pytest.raises(ValueError, match=f"ShardedMarginSoftmaxLossLayer: .*{says}"):
        build(tmp_path, "ShardedMarginSoftmaxLoss", given)


def test_it_is_for_training_alone(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(
        NET.format(rows=ROWS, features=FEATURES, kind="ShardedMarginSoftmaxLoss", given=PLAIN)
    )
    with pytest.raises(ValueError, match="include { phase: TRAIN }"):
        caffe.Net(str(path), caffe.TEST)


def test_its_gradient_and_that_of_gather_batch_are_checked(tmp_path, command):
    path = tmp_path / "net.prototxt"
    path.write_text(f"""
    layer {{ name: "data" type: "Input" top: "x" top: "y" input_param {{
      shape {{ dim: 8 dim: 6 }} shape {{ dim: 8 }} }} }}
    layer {{ name: "fc" type: "InnerProduct" bottom: "x" top: "fc"
      inner_product_param {{ num_output: 4 weight_filler {{ type: "xavier" }} }} }}
    layer {{ name: "all" type: "Python" bottom: "fc" bottom: "y" top: "rows" top: "labels"
      python_param {{ module: "caffe_metric.layers" layer: "GatherBatchLayer" }} }}
    layer {{ name: "loss" type: "Python" bottom: "rows" bottom: "labels" top: "loss" loss_weight: 1
      python_param {{ module: "caffe_metric.layers" layer: "ShardedMarginSoftmaxLossLayer"
        param_str: "{{{PLAIN}, semihard: true, base: 9, gamma: 0.5}}" }} }}
    """)
    status, out, err = command("gradcheck", path)
    assert status == 0, out + err
    assert "checked at a rate of 0" in out
    for layer in ("all", "loss"):
        assert any(line.split()[0] == layer and " ok " in line for line in out.splitlines() if line)


class Part:
    """A layer of one of several ranks."""

    SHARDED = True

    def __init__(self, first, last):
        self.first, self.rate = first, 0.1
        self.weights = np.zeros((last - first, FEATURES), np.float32)
        self.history = np.zeros_like(self.weights)


class Net:
    def __init__(self, layer):
        self._layer_names, self.layers = ["loss"], [layer]


def test_a_file_holds_the_weights_and_their_momentum(tmp_path, rng):
    one, other = Part(0, CLASSES), Part(0, CLASSES)
    one.weights[...] = rng.standard_normal(one.weights.shape)
    one.history[...] = rng.standard_normal(one.weights.shape)
    (path,) = Shards(Net(one), Ranks()).write(tmp_path, "net_iter_3")
    assert path.name == "net_iter_3_classes0.npy"
    np.testing.assert_array_equal(np.load(path), [one.weights, one.history])
    Shards(Net(other), Ranks()).read([path])
    np.testing.assert_array_equal(other.weights, one.weights)
    np.testing.assert_array_equal(other.history, one.history)


def test_a_file_of_other_classes_is_refused(tmp_path):
    (path,) = Shards(Net(Part(0, CLASSES)), Ranks()).write(tmp_path, "net_iter_3")
    with pytest.raises(UserError, match=r"holds \(2, 11, 5\), layer 'loss' has \(2, 12, 5\)"):
        Shards(Net(Part(0, 12)), Ranks()).read([path])
    with pytest.raises(UserError, match="no classes of layer 'loss'"):
        Shards(Net(Part(0, CLASSES)), Ranks()).read([])
