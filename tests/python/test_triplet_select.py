"""TripletSelectLayer by label, and under its older name by the order of the rows."""

from __future__ import annotations

import numpy as np
import pytest
from equal_lengths import zip_equal

pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")

from harness import build, inputs
from oracle import triplet as oracle

RNG = np.random.default_rng(8)


def net(x, labels, parameters="", module="caffe_metric.layers", tops="apn"):
    bottoms = {"x": x} if labels is None else {"x": x, "y": labels}
    text = "force_backward: true\n" + inputs(bottoms)
    text += 'layer { name: "select" type: "Python" '
    text += " ".join(f'bottom: "{name}"' for name in bottoms) + " "
    text += " ".join(f'top: "{name}"' for name in tops)
    text += f' python_param {{ module: "{module}" layer: "TripletSelectLayer" '
    text += f'param_str: "{parameters}" }} }}\n'
    made = build(text)
    for name, value in bottoms.items():
        made.blobs[name].data[...] = value
    made.forward()
    return made


def rows(made, tops="apn"):
    """Row numbers of the tops' rows."""
    x = made.blobs["x"].data
    flat = x.reshape(len(x), -1)
    found = []
    for name in tops:
        top = made.blobs[name].data
        top = top.reshape(len(top), -1)
        found.append([int(np.flatnonzero((flat == row).all(axis=1))[0]) for row in top])
    return np.array(found).T


def backward(made, tops="apn"):
    """Distinct gradients of the tops go back; returns them, and what arrives."""
    diffs = []
    for name in tops:
        diff = RNG.normal(size=made.blobs[name].data.shape).astype(np.float32)
        made.blobs[name].diff[...] = diff
        diffs.append(diff)
    made._backward(len(made.layers) - 1, 0)
    return diffs, made.blobs["x"].diff.copy()


def summed(diffs, triplets, shape):
    """Row by row."""
    out = np.zeros(shape)
    for k, triplet in enumerate(triplets):
        for diff, row in zip_equal(diffs, triplet):
            out[row] += diff[k]
    return out


@pytest.mark.parametrize("mining", ["ALL", "HARDEST", "SEMIHARD", "VIOLATING"])
def test_triplets_by_label(mining):
    x, labels = RNG.normal(size=(13, 3)).astype(np.float32), RNG.integers(0, 4, 13)
    made = net(x, labels, f"{{mining: {mining}, margin: 2}}")
    triplets = rows(made)
    options = oracle.Options(mining=mining, margin=2.0)
    candidates = oracle.candidates(options, x, labels)
    if mining in ("ALL", "HARDEST"):
        assert {tuple(row) for row in triplets.tolist()} == set(
            oracle.all_triplets(options, x, labels)
        )
    else:
        assert len(triplets) == sum(bool(found) for found in candidates.values())
        assert all(n in candidates[a, p] for a, p, n in triplets.tolist())
    diffs, gradient = backward(made)
    assert np.allclose(gradient, summed(diffs, triplets, x.shape), atol=1e-5)


def test_the_default_takes_the_hardest_of_each_anchor():
    x, labels = RNG.normal(size=(8, 5)), np.arange(8) // 2
    assert np.array_equal(rows(net(x, labels)), rows(net(x, labels, "mining: HARDEST")))
    assert (rows(net(x, labels))[:, 0] == np.arange(8)).all()


def test_rows_of_more_axes_and_weights():
    x, labels = RNG.normal(size=(6, 2, 3, 2)), np.arange(6) // 2
    made = net(x, labels, tops="apnw")
    assert made.blobs["a"].data.shape == (6, 2, 3, 2)
    assert (made.blobs["w"].data == 1).all()
    triplets = rows(made)
    diffs, gradient = backward(made)
    assert np.allclose(gradient, summed(diffs, triplets, x.shape), atol=1e-5)


def test_a_batch_without_triplets_has_one_row_that_weighs_nothing():
    x = RNG.normal(size=(4, 3))
    made = net(x, np.zeros(4), tops="apnw")
    for name in "apn":
        assert made.blobs[name].data.shape == (1, 3)
    assert made.blobs["w"].data.tolist() == [0]
    _, gradient = backward(made)
    assert (gradient == 0).all()
    made.blobs["y"].data[...] = np.arange(4) // 2  # the next batch has some again
    made.forward()
    assert made.blobs["w"].data.tolist() == [1] * 4


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ("swap: true", "unknown parameter 'swap': known are mining, margin"),
        ("mining: EASY", "mining: 'EASY' is none of ALL"),
        ("{distance: LP, p: 0}", "p is 0, must be > 0 with distance LP"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ValueError, match=f"TripletSelectLayer: {message}"):
        net(np.zeros((4, 2)), np.zeros(4), parameters)


def test_bad_batches():
    x = np.zeros((4, 2), np.float32)
    with pytest.raises(ValueError, match="the label of row 1 is -1"):
        net(x, [0, -1, 0, 0])
    x[2, 1] = np.nan
    with pytest.raises(ValueError, match="row 2 of the features holds NaN or Inf"):
        net(x, np.zeros(4))


@pytest.mark.parametrize("labels", [None, np.zeros(12)])
@pytest.mark.parametrize("shape", [(12, 5), (12, 3, 1, 1), (3, 1)])
def test_older_order(labels, shape):
    x = RNG.normal(size=shape).astype(np.float32)
    if labels is not None:
        labels = labels[: len(x)]
    made = net(x, labels, module="tripletselectlayer")
    third = len(x) // 3
    flat = x.reshape(len(x), -1)

    def distance(row):
        return float(((flat[0] - flat[row]) ** 2).sum())

    positives = sorted(range(third, 2 * third), key=distance, reverse=True)
    negatives = sorted(range(2 * third, len(x)), key=distance, reverse=True)
    triplets = list(zip_equal(range(third), positives, negatives))
    assert rows(made).tolist() == [list(triplet) for triplet in triplets]

    diffs, gradient = backward(made)
    passing = [k for k, (_, p, n) in enumerate(triplets) if distance(p) < distance(n)]
    expected = summed([diff[passing] for diff in diffs], [triplets[k] for k in passing], x.shape)
    assert np.allclose(gradient, expected, atol=1e-5)


def test_older_order_keeps_the_order_of_ties_and_passes_no_gradient_for_them():
    x = np.ones((9, 2), np.float32)
    x[3:, 0] = 2
    made = net(x, None, module="tripletselectlayer")
    made.blobs["x"].data[3:, 1] = 1
    _, gradient = backward(made)
    assert (gradient == 0).all()


def test_older_order_needs_a_multiple_of_three():
    with pytest.raises(ValueError, match="the batch of 10 rows is no multiple of 3"):
        net(np.zeros((10, 2)), None, module="tripletselectlayer")
