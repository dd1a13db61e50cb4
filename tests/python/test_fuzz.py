"""2,000 random prototxts and batches, a fixed seed: finite numbers or a clear message.

Never a crash without one, never a hang. Parameters and shapes are valid most of the time, and each
may be off: zero, negative, too large, of the wrong count. Features are within 1e6 of 0 (LP raises
them to a power), so that finite numbers are possible; a NaN or Inf is put into loss layers only,
which promise to name it.

A case that aborts takes its process with it. A child process goes through the cases in order and
says in shared memory which one it is at; when it dies, the next child goes on behind that case.
"""

from __future__ import annotations

import mmap
import struct

import numpy as np
import pytest
from caffe_metric import suite
from caffe_metric.support import child
from harness import Spec, need, run

import caffe

CASES = {"cpp": 2000, "python": 400, "numpy": 200}
SEED = 1729
TIME_LIMIT = 120  # seconds for a child: thousands of times what its cases take

FILLER = {"type": "gaussian", "std": 1}


def choose(rng, usual, odd, share=0.06):
    """Mostly one of the usual values, sometimes an odd one."""
    values = odd if odd and rng.random() < share else usual
    return values[rng.integers(len(values))]


def some(rng, makers):
    """A random subset of parameters."""
    return {name: make() for name, make in makers.items() if rng.random() < 0.5}


def triplet_parameters(rng):
    return some(
        rng,
        {
            "margin": lambda: choose(rng, [0.2, 1.0, 5.0], [0.0, -1.0, 1e6]),
            "losstype": lambda: choose(rng, ["HINGE", "RATIO", "SOFT", 0, 1, 2], [3, "SOFTER"]),
            "num_negatives": lambda: choose(rng, [1, 2, 3], [0, 4000000000, -1]),
            "use_pair": lambda: bool(rng.integers(2)),
            "distance": lambda: choose(rng, ["SQUARED_L2", "L2", "LP", "COSINE"], [9]),
            "p": lambda: choose(rng, [1.0, 2.0, 3.0, 0.5], [0.0, -1.0]),
            "eps": lambda: choose(rng, [1e-6, 1e-3], [0.0, -1.0]),
            "swap": lambda: bool(rng.integers(2)),
            "mining": lambda: choose(rng, ["ALL", "SEMIHARD", "VIOLATING", "HARDEST"], [5]),
        },
    )


def rank_parameters(rng):
    return some(
        rng,
        {
            "neg_num": lambda: choose(rng, [1, 2, 4, 20], [0, 4000000000]),
            "pair_size": lambda: choose(rng, [2, 2, 2, 3, 4], [0, 1, 4294967295]),
            "hard_ratio": lambda: choose(rng, [0.0, 0.5, 1.0], [-0.1, 1.5]),
            "rand_ratio": lambda: choose(rng, [0.0, 0.5, 1.0], [-0.1, 1.5]),
            "margin": lambda: choose(rng, [0.2, 1.0, 5.0], [0.0, -1.0, 1e6]),
        },
    )


def margin_parameters(rng):
    given = some(
        rng,
        {
            "type": lambda: choose(rng, ["SINGLE", "DOUBLE", "TRIPLE", "QUADRUPLE"], [4, -1]),
            "axis": lambda: choose(rng, [1, -1], [0, 2, 5, -7]),
            "base": lambda: choose(rng, [0.0, 1.0, 1000.0], [-1.0, 1e30]),
            "gamma": lambda: choose(rng, [0.0, 0.1], [-1.0, 1e30]),
            "power": lambda: choose(rng, [1.0, 0.5], [-1.0, 100.0]),
            "iteration": lambda: choose(rng, [0, 100], [-1, 2000000000]),
            "lambda_min": lambda: choose(rng, [0.0, 5.0], [-1.0]),
            "triplet": lambda: bool(rng.integers(2)),
            "semihard": lambda: bool(rng.integers(2)),
            "gradient": lambda: choose(rng, ["EXACT", "REFERENCE"], [2]),
            "persist_iteration": lambda: bool(rng.integers(2)),
            "margin_in_test": lambda: bool(rng.integers(2)),
            "normalize_features": lambda: bool(rng.integers(2)),
            "scale": lambda: choose(rng, [1.0, 30.0], [0.0, -1.0]),
            "normalize_weights": lambda: bool(rng.integers(2)),
            "ignore_negative_labels": lambda: bool(rng.integers(2)),
        },
    )
    if rng.random() < 0.2:
        given["angular_margin"] = choose(rng, [0.0, 0.5, 1.5], [-0.1, 1.6])
    if rng.random() < 0.2:
        given["cosine_margin"] = choose(rng, [0.0, 0.35], [-0.1, 5.0])
    given["num_output"] = choose(rng, [1, 2, 5, 33], [0])
    given["weight_filler"] = FILLER
    return given


def margin_softmax_parameters(rng):
    given = {
        "sample_rate": lambda: choose(rng, [1.0, 0.5, 0.01], [0.0, -1.0, 1.5]),
        "label_smoothing": lambda: choose(rng, [0.0, 0.1, 0.9], [-0.1, 1.0]),
        "keep_logits": lambda: choose(rng, ["AUTO", "ALWAYS", "NEVER"], [3]),
        "own_update": lambda: bool(rng.integers(2)),
        "update_rate": lambda: choose(rng, [0.0, 0.1], [-1.0]),
        "update_momentum": lambda: choose(rng, [0.0, 0.9], [-0.1, 1.0]),
        "update_decay": lambda: choose(rng, [0.0, 0.01], [-1.0]),
    }
    return {**margin_parameters(rng), **some(rng, given)}


def norm_parameters(rng):
    return some(rng, {"eps": lambda: choose(rng, [1e-10, 0.1], [0.0, -1.0])})


def numbers(**ranges):
    """Parameters of (usual, odd) values."""

    def make(rng):
        made = {name: lambda pair=pair: choose(rng, *pair) for name, pair in ranges.items()}
        return some(rng, made)

    return make


def of_classes(filler, make):
    """And num_output, and a filler."""

    def with_classes(rng):
        classes = choose(rng, [2, 5, 33], [0, 1])
        return {**make(rng), "num_output": classes, filler: FILLER}

    return with_classes


MARGINS = [0.0, 0.2, 1.0, 3.0], [-1.0, 1e6]
SHARPNESS = [0.5, 2.0, 50.0, 256.0], [0.0, -1.0, 1e6]

MAKERS = {
    "BatchContrastiveLoss": numbers(
        positive_margin=([0.0, 0.2], [-1.0, 1e6]), negative_margin=([0.5, 1.0, 3.0], [0.0, -1.0])
    ),
    "MultiSimilarityLoss": numbers(
        alpha=SHARPNESS, beta=SHARPNESS, base=MARGINS, epsilon=([0.1, 0.0, -1.0, 3.0], [])
    ),
    "CircleLoss": numbers(margin=MARGINS, gamma=SHARPNESS),
    "SupConLoss": numbers(temperature=([0.05, 0.1, 2.0], [0.0, -1.0, 1e-6])),
    "LiftedStructureLoss": numbers(
        margin=MARGINS, form=(["SONG", "GENERALIZED", 0, 1], [2]), normalize=([True, False], [])
    ),
    "ProxyAnchorLoss": of_classes("proxy_filler", numbers(margin=MARGINS, alpha=SHARPNESS)),
    "CenterLoss": of_classes(
        "center_filler", numbers(update=(["DELTA", "GRADIENT"], [2]), axis=([1, -1], [0, 2, -7]))
    ),
    "Norm": norm_parameters,
    "TripletLoss": triplet_parameters,
    "RankHardLoss": rank_parameters,
    "MarginInnerProduct": margin_parameters,
    "MarginSoftmaxLoss": margin_softmax_parameters,
}


def features(rng, n):
    """N rows of awkward shape and size, with ties, duplicates and zero rows."""
    shape = (n, *choose(rng, [(1,), (3,), (7,), (33,), (2, 2, 1)], [(), (0,), (1, 0, 3)]))
    scale = choose(rng, [1.0, 1.0, 1e-3, 30.0], [0.0, 1e-30, 1e6])
    x = rng.normal(size=shape) * scale
    if rng.random() < 0.2:
        x = np.round(x)
    if n and x.size and rng.random() < 0.2:
        x[rng.integers(n)] = x[rng.integers(n)]
    if n and x.size and rng.random() < 0.2:
        x[rng.integers(n)] = 0
    return np.float32(x)


def labels(rng, n, classes, group=1):
    found = np.float32(rng.integers(0, max(1, classes), n) // group * group)
    found = np.repeat(found[: -(-n // group)], group)[:n] if group > 1 else found
    if n and rng.random() < 0.04:
        found[rng.integers(n)] = choose(rng, [-1.0, 0.5, 1e9, np.nan, np.inf], [])
    return found


def some_bottoms(rng, row, parameters, x):
    """Bottoms of one of the layer's layouts; sometimes one too many, or of a wrong length."""
    layout = row.bottoms[rng.integers(len(row.bottoms))]
    n, bottoms = len(x), {"x": x}
    for place, role in enumerate(layout[1:], 1):
        rows = choose(rng, [n], [max(0, n - 1), n + 1], 0.03)
        if role == suite.LABEL:
            classes = parameters.get("num_output", choose(rng, [4, 9], []))
            group = int(np.clip(row.group(parameters), 1, 64))
            made = labels(rng, rows, classes, group if rng.random() < 0.95 else 1)
        elif role == suite.FEATURES:
            made = rng.normal(size=(rows, *(x.shape[1:] if rng.random() < 0.97 else (2,))))
        else:
            made = rng.uniform(0, 2, rows)
        bottoms[f"{role}{place}"] = made
    if rng.random() < 0.02:
        bottoms["more"] = rng.uniform(0, 2, n)
    return bottoms


def make(engine, number):
    """The case of a number: (Spec, bottoms, phase, may the numbers be non-finite)."""
    rng = np.random.default_rng([SEED, number])
    kinds = [kind for kind in MAKERS if engine != "cpp" or suite.find(kind).native]
    kind = kinds[rng.integers(len(kinds))]
    row, parameters = suite.find(kind), MAKERS[kind](rng)
    n = int(choose(rng, [2, 4, 6, 12, 24], [0, 1, 5, 7, 64]))
    x = features(rng, n)
    bottoms = some_bottoms(rng, row, parameters, x)
    if row.loss and x.size and rng.random() < 0.03:
        x.flat[rng.integers(x.size)] = choose(rng, [np.nan, np.inf, -np.inf], [])
    most = row.top_counts[-1]
    tops = int(choose(rng, [1, 1, rng.integers(1, most + 1)], [0, most + 1, 5]))
    normalization = choose(rng, [None, "FULL", "VALID", "BATCH_SIZE", "NONE"], ["HALF"])
    spec = Spec(kind, parameters, tops, engine, normalization if row.loss else None, name="fuzzed")
    phase = caffe.TRAIN if rng.random() < 0.8 else caffe.TEST
    return spec, bottoms, phase


def survive(engine, number):
    """Forward and backward of a case; the numbers must be finite."""
    spec, bottoms, phase = make(engine, number)
    made = run(spec, bottoms, phase=phase)
    for _ in range(2):
        tops = made.forward(seed=number)
        rng = np.random.default_rng(number)
        gradients = made.backward(*(rng.normal(size=top.shape) for top in tops))
        arrays = {f"top {i}": top for i, top in enumerate(tops)}
        arrays |= {f"gradient of {name}": value for name, value in gradients.items()}
        arrays |= {f"gradient of blob {i}": blob.diff for i, blob in enumerate(made.blobs)}
        for name, array in arrays.items():
            assert np.isfinite(array).all(), f"{name} is not finite"


def is_clear(words):
    """Names the layer, or is one of Caffe's own checks that are as clear."""
    return (
        "fuzzed" in words
        or "Layer takes" in words  # the number of bottoms or tops
        or "Failed to parse NetParameter" in words  # the line stands above it in the log
        or "bottom blob(s)" in words
        or "top blob(s)" in words
    )


@pytest.mark.parametrize("engine", CASES)
@pytest.mark.slow
def test_fuzz(engine):
    need(engine)
    place = mmap.mmap(-1, 8)  # shared with the children

    def rest(begin, end):
        refused = 0
        for number in range(begin, end):
            place[:] = struct.pack("q", number)
            try:
                survive(engine, number)
            except (ValueError, TypeError) as error:
                if engine == "cpp" or not is_clear(str(error)):
                    raise
                refused += 1
        return refused

    number, refused, bad = 0, 0, []
    while number < CASES[engine]:
        begin = number
        outcome = child.run(lambda begin=begin: rest(begin, CASES[engine]), timeout=TIME_LIMIT)
        if outcome.ok:
            refused += outcome.value
            break
        (number,) = struct.unpack("q", place[:])
        refused += 1
        if outcome.timed_out or outcome.error or not is_clear(outcome.last_words):
            spec, bottoms, phase = make(engine, number)
            shapes = {name: np.shape(value) for name, value in bottoms.items()}
            bad.append(f"{number}: {outcome.last_words[:300]}\n{spec}\n{shapes} {phase}")
            if len(bad) == 10:
                break
        number += 1
    assert not bad, "\n\n".join(bad)
    # Most cases must get through, or the fuzz tests only the checks.
    assert 0.1 < refused / CASES[engine] < 0.6
