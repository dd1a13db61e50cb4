"""The losses over the pairs of a batch against loops in float64: values, reports and gradients.

Sizes: N = 1 ... 21, D = 1, 3, 7, 33; one class, all different, one row of a class; duplicates, rows
of zeros, parameters at which a sum of exponentials overflows. Tolerances: float32 sums of up to 21
numbers, times the sharpness of the loss (alpha, beta, gamma, 1/temperature): they grow rounding.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tolerances
from harness import ENGINES, Spec, assert_close, run
from oracle import batch_losses as oracle
from oracle import numeric

import caffe

# id: type, parameters, oracle, its parameters, tolerance over those of a plain loss.
CASES = {
    "contrastive": ("BatchContrastiveLoss", {}, oracle.contrastive, 1),
    "contrastive, margins": (
        "BatchContrastiveLoss",
        {"positive_margin": 0.25, "negative_margin": 1.5},
        oracle.contrastive,
        1,
    ),
    "multi-similarity": ("MultiSimilarityLoss", {}, oracle.multi_similarity, 10),
    "multi-similarity, all pairs": (
        "MultiSimilarityLoss",
        {"alpha": 3.0, "beta": 20.0, "base": 0.25, "epsilon": -1.0},
        oracle.multi_similarity,
        10,
    ),
    "circle": ("CircleLoss", {}, oracle.circle, 50),
    "circle, mild": ("CircleLoss", {"margin": 0.5, "gamma": 4.0}, oracle.circle, 5),
    "sup-con": ("SupConLoss", {}, oracle.sup_con, 5),
    "sup-con, warm": ("SupConLoss", {"temperature": 2.0}, oracle.sup_con, 5),
    "lifted": ("LiftedStructureLoss", {}, oracle.lifted, 5),
    "lifted, unit": ("LiftedStructureLoss", {"normalize": True, "margin": 0.5}, oracle.lifted, 5),
    "lifted, generalized": ("LiftedStructureLoss", {"form": "GENERALIZED"}, oracle.lifted, 5),
    "lifted, generalized, unit": (
        "LiftedStructureLoss",
        {"form": "GENERALIZED", "normalize": True},
        oracle.lifted,
        5,
    ),
}
BATCHES = {
    "N = 2": ([0, 0], 3),
    "N = 3": ([0, 0, 1], 7),
    "D = 1": ([0, 0, 1, 1, 2], 1),
    "D = 33": (np.arange(8) // 2, 33),
    "unequal classes": ([4, 0, 0, 0, 2, 4, 0, 9, 2, 0], 3),
    "many": (np.arange(16) // 4, 5),
    "classes mixed": (np.arange(21) * 4 % 5, 3),  # a row is more than the processor's vectors
}

by_case = pytest.mark.parametrize("case", CASES)
by_engine = pytest.mark.parametrize("engine", ENGINES)


def given(name):
    """The oracle's parameters as the layers have them: float32."""
    parameters = CASES[name][1]
    defaults = {"SupConLoss": {"temperature": 0.1}, "MultiSimilarityLoss": {"epsilon": 0.1}}
    parameters = {**defaults.get(CASES[name][0], {}), **parameters}
    return {
        key: float(np.float32(value)) if isinstance(value, float) else value
        for key, value in parameters.items()
    }


@functools.lru_cache(maxsize=None)  # loops take their time: once for all engines
def expected(name, batch):
    """x, labels, the oracle's tops and gradient of a batch."""
    labels, dim = BATCHES[batch]
    rng = np.random.default_rng(len(labels))
    x, labels = np.float32(rng.normal(size=(len(labels), dim))), np.array(labels)
    if dim == 1:  # cosines of 1 and -1: no class all of one sign, or float32 has no loss to tell
        x = np.abs(x) * np.float32(-1) ** np.arange(len(x))[:, None]
    return x, labels, CASES[name][2](x, labels, **given(name)), slope_of(name, x, labels)


def slope_of(name, x, labels, memory=None):
    """The oracle's gradient; of the circle loss with its factors as constants."""
    more = {**given(name), **({} if memory is None else {"memory": memory})}
    loss = CASES[name][2]
    if loss is oracle.circle:
        margin = more.get("margin", 0.25)
        more["factors"] = oracle.all_circle_factors(x, labels, margin, memory)
    return numeric.gradient(lambda x: loss(x, labels, **more)[0], x)


@by_engine
@by_case
@pytest.mark.parametrize("batch", BATCHES)
def test_values_and_gradients(engine, case, batch):
    x, labels, tops, slope = expected(case, batch)
    kind, parameters, _, factor = CASES[case]
    made = run(Spec(kind, parameters, 4, engine), {"x": x, "y": labels})
    for one, other in zip(made.forward(), tops):
        assert_close(one, other, factor * tolerances.VALUE, floor=1e-3)
    gradients = made.backward(0.7, 0, 0, 0)
    # What a cosine's gradient has along its row cancels; with one feature that is all of it.
    floor = 1.0 if x.shape[1] == 1 else 1e-3
    assert_close(gradients["x"], 0.7 * slope, factor * tolerances.GRADIENT, floor)
    assert not gradients["y"].any()


@by_engine
@pytest.mark.parametrize("mode", ["FULL", "VALID", "BATCH_SIZE", "NONE"])
@pytest.mark.parametrize("case", ["contrastive", "multi-similarity", "circle", "lifted"])
def test_normalization(engine, case, mode):
    """It replaces the divisor of a mean over anchors, and no other."""
    x, labels, (value, active, *_), _ = expected(case, "unequal classes")
    kind, parameters = CASES[case][:2]
    made = run(Spec(kind, parameters, 1, engine, mode), {"x": x, "y": labels})
    anchors = {"circle": round(active * len(x))}.get(case, len(x))
    divisors = {"FULL": len(x), "VALID": round(active * len(x)), "BATCH_SIZE": len(x), "NONE": 1}
    if case in ("circle", "multi-similarity"):
        value *= anchors / divisors[mode]
    assert_close(made.forward()[0], value, CASES[case][3] * tolerances.VALUE)


@by_engine
@by_case
@pytest.mark.parametrize("labels", [[3], [0, 0, 0, 0], [0, 1, 2, 3]], ids=str)
def test_a_batch_without_both_kinds_of_pairs_has_loss_0(rng, engine, case, labels):
    x = np.float32(rng.normal(size=(len(labels), 3)))
    kind, parameters = CASES[case][:2]
    made = run(Spec(kind, parameters, 4, engine), {"x": x, "y": np.array(labels)})
    loss, active, *means = made.forward()
    assert (loss, active) == (0, 0)
    assert not made.backward(1, 0, 0, 0)["x"].any()
    assert_close(means, CASES[case][2](x, labels, **given(case))[2:], tolerances.VALUE, floor=1e-3)


@by_engine
@by_case
def test_duplicates_and_rows_of_zeros(rng, engine, case):
    x = np.float32(rng.normal(size=(8, 5)))
    x[1] = x[0]  # of its class
    x[4] = x[0]  # of another
    if case != "contrastive":  # at distance 1 from all others, which is its margin
        x[7] = 0
    kind, parameters, loss, factor = CASES[case]
    labels = np.arange(8) // 2
    made = run(Spec(kind, parameters, 4, engine), {"x": x, "y": labels})
    for one, other in zip(made.forward(), loss(x, labels, **given(case))):
        assert_close(one, other, factor * tolerances.VALUE, floor=1e-3)
    gradient = made.backward(1, 0, 0, 0)["x"]
    assert np.isfinite(gradient).all()
    if CASES[case][0] != "LiftedStructureLoss" or given(case).get("normalize"):
        assert gradient[7].any() == x[7].any()


@by_engine
@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("MultiSimilarityLoss", {"alpha": 1e4, "beta": 1e5}),
        ("CircleLoss", {"gamma": 1e6}),
        ("SupConLoss", {"temperature": 1e-5}),
        ("LiftedStructureLoss", {"margin": 1e4}),
        ("LiftedStructureLoss", {"margin": 1e4, "form": "GENERALIZED"}),
    ],
    ids=str,
)
def test_no_sum_of_exponentials_overflows(rng, engine, kind, parameters):
    bottoms = {"x": np.float32(rng.normal(size=(9, 4))), "y": np.arange(9) // 3}
    made = run(Spec(kind, parameters, 1, engine), bottoms)
    assert np.isfinite(made.forward()[0])
    assert np.isfinite(made.backward(1)["x"]).all()


@by_engine
@by_case
def test_scaling_the_rows_changes_nothing_where_they_are_made_unit(rng, engine, case):
    kind, parameters = CASES[case][:2]
    if kind == "LiftedStructureLoss" and not parameters.get("normalize"):
        pytest.skip("takes the rows as they are")
    x, labels = np.float32(rng.normal(size=(9, 4))), np.arange(9) // 3
    one = run(Spec(kind, parameters, 1, engine), {"x": x, "y": labels}).forward()[0]
    x *= np.float32(2.0) ** rng.integers(-9, 9, (9, 1))
    other = run(Spec(kind, parameters, 1, engine), {"x": x, "y": labels}).forward()[0]
    assert_close(one, other, tolerances.VALUE)


@by_engine
def test_a_single_proxy_has_loss_0(rng, engine):
    x, proxies = np.float32(rng.normal(size=(3, 4))), np.float32(rng.normal(size=(1, 4)))
    spec = Spec("ProxyAnchorLoss", {"num_output": 1}, 1, engine)
    made = run(spec, {"x": x, "y": [0, 0, 0]}, proxies)
    assert made.forward()[0] == 0
    assert not made.backward(1)["x"].any()
    assert not made.blobs[0].diff.any()


PROXIES = {"num_output": 5}


@by_engine
@pytest.mark.parametrize("parameters", [{}, {"margin": 0.25, "alpha": 4.0}], ids=str)
@pytest.mark.parametrize("labels", [[0, 0, 1, 3, 3, 3, 4], [2], [1, 1, 1]], ids=str)
def test_proxy_anchor(rng, engine, parameters, labels):
    x = np.float32(rng.normal(size=(len(labels), 6)))
    proxies = np.float32(rng.normal(size=(5, 6)))
    spec = Spec("ProxyAnchorLoss", {**PROXIES, **parameters}, 1, engine)
    made = run(spec, {"x": x, "y": labels}, proxies)
    own = {"margin": float(np.float32(0.1)), **parameters}

    def loss(x, proxies):
        return oracle.proxy_anchor(x, labels, proxies, **own)

    assert_close(made.forward()[0], loss(x, proxies), 5 * tolerances.VALUE)
    gradient = made.backward(0.7)
    by_x = numeric.gradient(lambda x: loss(x, proxies), x)
    by_proxy = numeric.gradient(lambda rows: loss(x, rows), proxies)
    assert_close(gradient["x"], 0.7 * by_x, 5 * tolerances.GRADIENT)
    assert_close(made.blobs[0].diff, 0.7 * by_proxy, 5 * tolerances.GRADIENT)


@by_engine
@pytest.mark.parametrize("update", ["DELTA", "GRADIENT"])
@pytest.mark.parametrize("labels", [[0, 0, 1, 3, 3, 3, 4], [2]], ids=str)
def test_center(rng, engine, update, labels):
    x = np.float32(rng.normal(size=(len(labels), 6)))
    centers = np.float32(rng.normal(size=(5, 6)))
    spec = Spec("CenterLoss", {"num_output": 5, "update": update}, 1, engine)
    made = run(spec, {"x": x, "y": labels}, centers)
    loss, delta = oracle.center(x, labels, centers)
    assert_close(made.forward()[0], loss, tolerances.VALUE)
    gradient = made.backward(0.7)
    by_x = numeric.gradient(lambda x: oracle.center(x, labels, centers)[0], x)
    assert_close(gradient["x"], 0.7 * by_x, tolerances.GRADIENT)
    if update == "GRADIENT":
        delta = 0.7 * numeric.gradient(lambda c: oracle.center(x, labels, c)[0], centers)
    assert_close(made.blobs[0].diff, delta, tolerances.GRADIENT)


@by_engine
def test_center_takes_the_axes_behind_axis(rng, engine):
    x = np.float32(rng.normal(size=(2, 3, 2, 2)))
    centers = np.float32(rng.normal(size=(4, 4)))
    labels = [0, 1, 1, 3, 0, 2]
    spec = Spec("CenterLoss", {"num_output": 4, "axis": 2}, 1, engine)
    made = run(spec, {"x": x, "y": labels}, centers)
    assert_close(
        made.forward()[0], oracle.center(x.reshape(6, 4), labels, centers)[0], tolerances.VALUE
    )


@by_engine
def test_center_accumulates_over_passes(rng, engine):
    x, centers = np.float32(rng.normal(size=(4, 3))), np.float32(rng.normal(size=(2, 3)))
    made = run(
        Spec("CenterLoss", {"num_output": 2}, 1, engine), {"x": x, "y": [0, 0, 1, 1]}, centers
    )
    made.forward()
    made.backward(1)
    once = made.blobs[0].diff.copy()
    made.net._backward(len(made.net.layers) - 1, 0)
    assert_close(made.blobs[0].diff, 2 * once, tolerances.VALUE)


# What has a memory, over which an anchor meets each row on its own.
REMEMBERING = [name for name in CASES if CASES[name][1].get("form", "") == "GENERALIZED"] + [
    name for name in CASES if CASES[name][0] != "LiftedStructureLoss"
]


@by_engine
@pytest.mark.parametrize("case", REMEMBERING)
@pytest.mark.parametrize("rows", [5, 8, 30])
def test_memory(rng, engine, case, rows):
    """A ring that is smaller than a batch, one that wraps, one that is never full."""
    kind, parameters, loss, factor = CASES[case]
    labels = np.array([0, 0, 1, 1, 2, 3])
    made = run(
        Spec(kind, {**parameters, "rows": rows}, 4, engine, extra=KEPT),
        {"x": np.zeros((6, 4)), "y": labels},
    )
    seen, names = np.zeros((0, 4)), np.zeros(0)
    for _ in range(4):
        x, labels = np.float32(rng.normal(size=(6, 4))), rng.integers(0, 4, 6)
        found = made.forward(x=x, y=labels)
        memory = (seen, names)
        tops = loss(x, labels, **given(case), memory=memory)
        for one, other in zip(found, tops):
            assert_close(one, other, factor * tolerances.VALUE, floor=1e-3)
        slope = slope_of(case, x, labels, memory)
        gradient = made.backward(0.7, 0, 0, 0)["x"]
        assert_close(gradient, 0.7 * slope, factor * tolerances.GRADIENT, floor=1e-2)
        seen, names = np.r_[seen, x][-rows:], np.r_[names, labels][-rows:]
        assert not any(blob.diff.any() for blob in made.blobs)


KEPT = " ".join(["param { lr_mult: 0 decay_mult: 0 }"] * 3)


@by_engine
def test_only_training_fills_a_memory(rng, engine):
    bottoms = {"x": np.float32(rng.normal(size=(4, 3))), "y": [0, 0, 1, 1]}
    spec = Spec("SupConLoss", {"rows": 6}, 1, engine, extra=KEPT)
    made = run(spec, bottoms, phase=caffe.TEST)
    first = made.forward()[0]
    assert made.forward()[0] == first
    assert not any(blob.data.any() for blob in made.blobs)
    made = run(spec, bottoms)
    assert made.forward()[0] == first
    assert_close(made.blobs[0].data[:4], bottoms["x"], 0)
    assert made.forward()[0] != first
    other = run(spec, bottoms, phase=caffe.TEST)
    for one, blob in zip(other.blobs, made.blobs):  # as a TEST net shares them
        one.data[...] = blob.data
    assert other.forward()[0] != first
