"""The Python layers at the edges of float32 and of what a net's file may hold.

Finite features whose squares overflow, weight rows of NaN, blobs that come inside the prototxt, an
iteration count beyond 2^24, labels that are one float, and what a TEST forward draws. Each runs
with both backends.
"""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")

import caffe

BACKENDS = ["numpy", "core"]


@pytest.fixture(params=BACKENDS)
def backend(request):
    if request.param == "core":
        pytest.importorskip("caffe_metric._core")
    return request.param


@pytest.fixture
def build(tmp_path, backend):
    """A net of one Python layer; bottoms are inputs of the given shapes."""

    def make(layer, shapes, parameters="", tops=1, blobs="", phase=caffe.TRAIN):
        text = "force_backward: true\n"
        for i, shape in enumerate(shapes):
            dims = " ".join(f"dim: {number}" for number in shape)
            text += f'layer {{ name: "in{i}" type: "Input" top: "b{i}" '
            text += f"input_param {{ shape {{ {dims} }} }} }}\n"
        bottoms = " ".join(f'bottom: "b{i}"' for i in range(len(shapes)))
        names = " ".join(f'top: "t{i}" loss_weight: {int(i == 0)}' for i in range(tops))
        text += f'layer {{ name: "x" type: "Python" {bottoms} {names} {blobs} '
        text += f'python_param {{ module: "caffe_metric.layers" layer: "{layer}" '
        text += f'param_str: "{{backend: {backend}, {parameters}}}" }} }}'
        path = tmp_path / "net.prototxt"
        path.write_text(text)
        return caffe.Net(str(path), phase)

    return make


def fill(net, *arrays):
    for i, array in enumerate(arrays):
        net.blobs[f"b{i}"].data[...] = array


LABELS = [0, 0, 1, 1]


@pytest.mark.parametrize("mining", ["ALL", "SEMIHARD", "VIOLATING", "HARDEST"])
@pytest.mark.parametrize("distance", ["SQUARED_L2", "L2"])
def test_distances_beyond_float32_are_named(build, capfd, mining, distance):
    net = build("TripletLossLayer", [(4, 3), (4,)], f"mining: {mining}, distance: {distance}")
    fill(net, np.array([[3e19, 0, 0], [-3e19, 1, 0], [0, 2e19, 0], [0, 0, 1]]), LABELS)
    with pytest.raises(ValueError, match="features are too large: a distance of two rows is"):
        net.forward()
    # 1e19 squared is 1e38, which a float holds; so is the squared distance of rows 2e18 apart.
    fill(net, np.array([[1e18, 0, 0], [0, 1e18, 0], [0, 0, 1e18], [1e18, 1e18, 0]]), LABELS)
    net.forward()
    net.backward()
    assert np.isfinite(net.blobs["t0"].data)
    assert np.isfinite(net.blobs["b0"].diff).all()


def test_distances_of_given_rows_beyond_float32_are_named(build):
    net = build("TripletLossLayer", [(2, 3)] * 3)
    fill(net, 3e19, -3e19, 0)
    with pytest.raises(ValueError, match="features are too large: a distance of two rows is"):
        net.forward()
    fill(net, 3e19, np.nan, 0)
    with pytest.raises(ValueError, match="row 0 of the positives holds NaN or Inf"):
        net.forward()


@pytest.mark.parametrize("size", [1e-25, 1, 1e25])
def test_cosines_do_not_depend_on_length(build, backend, rng, size):
    x = rng.normal(size=(4, 3))
    values = []
    for scale in (1, size):
        net = build("TripletLossLayer", [(4, 3), (4,)], "mining: ALL, distance: COSINE")
        fill(net, scale * x, LABELS)
        net.forward()
        values.append(float(net.blobs["t0"].data))
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    if backend == "core":  # of given rows the compiled rule sums float32 squares
        return
    values.clear()
    rows = build("TripletLossLayer", [(2, 3)] * 3, "distance: COSINE")
    for scale in (1, size):
        fill(rows, scale * x[:2], scale * x[1:3], scale * x[2:])
        rows.forward()
        values.append(float(rows.blobs["t0"].data))
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_products_beyond_float32_are_named(build):
    net = build("RankHardLossLayer", [(4, 3), (4,)], "margin: 1")
    fill(net, np.array([[3e19, 0, 0], [3e19, 1, 0], [-3e19, 2, 0], [-3e19, 0, 1]]), LABELS)
    with pytest.raises(ValueError, match="features are too large: a product of two rows is"):
        net.forward()


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
@pytest.mark.parametrize("type_", ["SINGLE", "QUADRUPLE"])
def test_a_weight_row_of_nan_shows(build, phase, type_):
    parameters = (
        f"num_output: 3, type: {type_}, margin_in_test: true, weight_filler: {{type: xavier}}"
    )
    net = build("MarginInnerProductLayer", [(2, 4), (2,)], parameters, phase=phase)
    net.params["x"][0].data[1] = np.nan
    fill(net, 1, [1, 0])
    net.forward()
    logits = net.blobs["t0"].data
    assert np.isnan(logits[:, 1]).all()
    assert np.isfinite(logits[:, [0, 2]]).all()


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_logits_of_long_and_short_features(build, rng, size):
    x = rng.normal(size=(2, 4))
    parameters = "num_output: 3, type: DOUBLE, weight_filler: {type: xavier}"
    net = build("MarginInnerProductLayer", [(2, 4), (2,)], parameters)
    found = []
    for scale in (1, size):
        fill(net, scale * x, [1, 0])
        net.forward()
        found.append(net.blobs["t0"].data / np.float32(scale))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)


WEIGHTS = "blobs { shape { dim: 3 dim: 2 } data: 1 data: 0 data: 0 data: 1 data: 0.6 data: 0.8 }"


def test_blobs_in_the_prototxt_are_taken(build):
    count = "blobs { shape { dim: 1 } data: 41 }"
    net = build("MarginInnerProductLayer", [(1, 2), (1,)], "num_output: 3", 2, WEIGHTS + count)
    fill(net, [[3, 4]], [0])
    net.forward()
    assert len(net.params["x"]) == 2
    assert net.params["x"][1].data == 42
    np.testing.assert_allclose(net.blobs["t0"].data[0, 1:], [4, 5], rtol=1e-6)


@pytest.mark.parametrize(
    ("blobs", "message"),
    [
        (WEIGHTS, "has 1 blobs in its parameters, needs 2"),
        (3 * WEIGHTS, "has 3 blobs in its parameters, needs 2"),
        (2 * WEIGHTS, r"blob 1 has shape \[3, 2\], needs \[1\]"),
        (WEIGHTS.replace("dim: 3 dim: 2", "dim: 2 dim: 3") + WEIGHTS, r"blob 0 has shape \[2, 3\]"),
    ],
)
def test_blobs_that_do_not_fit_are_named(build, blobs, message):
    with pytest.raises(ValueError, match=message):
        build("MarginInnerProductLayer", [(1, 2), (1,)], "num_output: 3", 1, blobs)


def test_the_count_goes_on_beyond_2_to_the_24(build):
    """Read back from its float each time it would stand at 2^24."""
    start = 2**24
    parameters = (
        f"num_output: 3, iteration: {start}, base: 1.0e9, gamma: 1, weight_filler: {{type: xavier}}"
    )
    net = build("MarginInnerProductLayer", [(1, 2), (1,)], parameters, 2)
    fill(net, [[3, 4]], [0])
    for step in range(1, 6):
        net.forward()
        expected = 1e9 / (1 + start + step)
        assert float(net.blobs["t1"].data) == pytest.approx(expected, rel=1e-7)
    stuck, moved = 1e9 / (1 + start + 1), float(net.blobs["t1"].data)
    assert moved != np.float32(stuck)


@pytest.mark.parametrize(
    ("layer", "parameters"),
    [
        ("TripletLossLayer", ""),
        ("RankHardLossLayer", ""),
        ("MarginInnerProductLayer", "num_output: 20000000"),
    ],
)
def test_labels_that_are_one_float(build, layer, parameters):
    if "num_output" in parameters:  # a weight row of one number a class
        parameters = "num_output: 17000000"
    net = build(layer, [(4, 1), (4,)], parameters)
    fill(net, np.ones((4, 1)), [0, 0, 2**24 + 1, 2**24])
    message = "label of row 2 is 16777216, and Caffe's 32-bit labels are exact below 16777216 only"
    with pytest.raises(ValueError, match=message):
        net.forward()


@pytest.mark.parametrize(
    ("layer", "parameters"),
    [
        ("TripletLossLayer", "mining: SEMIHARD, margin: 9"),
        ("TripletLossLayer", "mining: VIOLATING, margin: 9"),
        ("RankHardLossLayer", "margin: 9, neg_num: 4"),
    ],
)
def test_a_test_forward_leaves_the_generator_alone(build, rng, layer, parameters):
    x = rng.normal(size=(16, 3))
    labels = np.arange(16) // 2
    train = build(layer, [(16, 3), (16,)], parameters)
    test = build(layer, [(16, 3), (16,)], parameters, phase=caffe.TEST)
    for net in (train, test):
        fill(net, x, labels)
        net.forward()  # the generator's own net is made at the first draw
    losses = []
    for tests in (0, 3):
        caffe.set_random_seed(7)
        seen = []
        for _ in range(4):
            train.forward()
            train.backward()
            seen.append(train.blobs["b0"].diff.copy())
            for _ in range(tests):
                test.forward()
        losses.append(seen)
    np.testing.assert_array_equal(*losses)
    assert any((a != b).any() for a, b in zip(losses[0], losses[0][1:]))
