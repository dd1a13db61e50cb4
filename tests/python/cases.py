"""Layers with bottoms and weights, one for each option that changes the arithmetic.

Every case is (id, Spec, bottoms, weights). Used by the gradient checks and by their teeth.
"""

from __future__ import annotations

import itertools

import numpy as np
from equal_lengths import zip_equal
from harness import Spec, unit_rows

FILLER = {"type": "xavier"}


def triplet_cases():
    rng = np.random.default_rng(1)
    losses = ["HINGE", "RATIO", "SOFT"]
    distances = ["SQUARED_L2", "L2", "LP", "COSINE"]
    for losstype, distance, swap in itertools.product(losses, distances, [False, True]):
        given = {"losstype": losstype, "distance": distance, "swap": swap, "margin": 0.6, "p": 3.0}
        rows = np.float32(rng.normal(size=(3, 5, 7)))
        bottoms = dict(zip_equal("apn", rows))
        yield f"3-{losstype}-{distance}-{swap}", given, bottoms
    for mining, distance in itertools.product(
        ["ALL", "SEMIHARD", "VIOLATING", "HARDEST"], distances
    ):
        given = {"mining": mining, "distance": distance, "margin": 0.8}
        bottoms = {"x": np.float32(rng.normal(size=(9, 4))), "y": np.arange(9) // 3}
        yield f"2-{mining}-{distance}", given, bottoms
    for losstype in losses:
        given = {"mining": "ALL", "swap": True, "use_pair": True, "losstype": losstype}
        bottoms = {"x": np.float32(rng.normal(size=(7, 4))), "y": np.arange(7) % 3}
        yield f"2-ALL-swap-pair-{losstype}", given, bottoms
    for num_negatives, use_pair in [(1, False), (3, True)]:
        given = {"num_negatives": num_negatives, "use_pair": use_pair}
        rows = rng.normal(size=(3 * (2 + num_negatives), 3))
        yield f"1-{num_negatives}-{use_pair}", given, {"x": np.float32(rows)}
    rows = np.float32(rng.normal(size=(3, 4, 3)))
    bottoms = {**dict(zip_equal("apn", rows)), "w": np.float32(rng.uniform(0.5, 2, 4))}
    yield "4-weights", {"use_pair": True}, bottoms
    bottoms = dict(zip_equal("apn", np.float32(rng.normal(size=(3, 2, 3, 2, 2)))))
    yield "3-four-axes", {}, bottoms


def rank_cases():
    rng = np.random.default_rng(2)
    for pair_size, neg_num, hard, rest in [(2, 9, 0.5, 0.5), (2, 2, 1.0, 0.0), (3, 3, 0.4, 0.7)]:
        given = {
            "pair_size": pair_size,
            "neg_num": neg_num,
            "hard_ratio": hard,
            "rand_ratio": rest,
            "margin": 0.9,
        }
        bottoms = {"x": unit_rows(rng, 12, 5), "y": np.arange(12) // pair_size}
        yield f"{pair_size}-{neg_num}-{hard}-{rest}", given, bottoms


def margin_cases():
    rng = np.random.default_rng(3)
    options = [
        {"type": kind, "base": base}
        for kind in ("SINGLE", "DOUBLE", "TRIPLE", "QUADRUPLE")
        for base in (0.0, 5.0)
    ]
    options += [
        {"type": "QUADRUPLE", "base": 50.0, "gamma": 0.3, "lambda_min": 2.0},
        {"normalize_features": True},
        {"scale": 7.0, "type": "DOUBLE"},
        {"normalize_features": True, "scale": 16.0, "angular_margin": 0.5},
        {"normalize_features": True, "scale": 16.0, "cosine_margin": 0.35},
        {"angular_margin": 0.3, "cosine_margin": 0.2},
        {"semihard": True, "type": "DOUBLE"},
        {"triplet": True, "type": "TRIPLE"},
        {"persist_iteration": False},
        {"normalize_weights": False, "type": "TRIPLE", "base": 1.0, "scale": 2.0},
        {"normalize_weights": False, "normalize_features": True, "type": "DOUBLE"},
    ]
    for given in options:
        name = "-".join(f"{key}={value}" for key, value in given.items())
        bottoms = {"x": np.float32(rng.normal(size=(6, 5))), "y": np.arange(6) % 4}
        parameters = {"num_output": 4, "weight_filler": FILLER, **given}
        yield name, parameters, bottoms, unit_rows(rng, 4, 5)


def margin_softmax_cases():
    rng = np.random.default_rng(8)
    options = [
        {"type": kind, "base": 2.0, "keep_logits": keep}
        for kind in ("SINGLE", "DOUBLE", "TRIPLE", "QUADRUPLE")
        for keep in ("ALWAYS", "NEVER")
    ]
    options += [
        {"type": "QUADRUPLE", "base": 50.0, "gamma": 0.3, "lambda_min": 2.0},
        {"normalize_features": True, "scale": 16.0, "angular_margin": 0.5},
        {"normalize_features": True, "scale": 16.0, "cosine_margin": 0.35},
        {"type": "TRIPLE", "normalize_weights": False, "base": 1.0, "label_smoothing": 0.2},
        {"semihard": True, "type": "DOUBLE"},
        {"sample_rate": 0.6, "type": "DOUBLE"},
        {"persist_iteration": False, "label_smoothing": 0.1},
    ]
    for given in options:
        name = "-".join(f"{key}={value}" for key, value in given.items())
        bottoms = {"x": np.float32(rng.normal(size=(6, 5))), "y": np.arange(6) % 4}
        parameters = {"num_output": 9, "weight_filler": FILLER, **given}
        yield name, parameters, bottoms, unit_rows(rng, 9, 5)


def norm_cases():
    rng = np.random.default_rng(4)
    for shape in [(1, 3), (4, 7), (2, 3, 2, 2)]:
        yield "x".join(map(str, shape)), {}, {"x": np.float32(rng.normal(size=shape))}


def over_pairs(*options):
    def cases():
        rng = np.random.default_rng(5)
        for given in options:
            bottoms = {"x": np.float32(rng.normal(size=(9, 5))), "y": np.arange(9) // 3}
            yield "-".join(f"{key}={value}" for key, value in given.items()), given, bottoms

    return cases


def over_classes(*options):
    def cases():
        rng = np.random.default_rng(6)
        for given in options:
            bottoms = {"x": np.float32(rng.normal(size=(6, 5))), "y": np.arange(6) % 3}
            rows = np.float32(rng.normal(size=(4, 5)))
            yield "-".join(map(str, given.values())), {"num_output": 4, **given}, bottoms, rows

    return cases


MAKERS = {
    "BatchContrastiveLoss": over_pairs({}, {"positive_margin": 0.3, "negative_margin": 1.6}),
    "MultiSimilarityLoss": over_pairs({}, {"epsilon": -1.0}, {"alpha": 5.0, "beta": 9.0}),
    "CircleLoss": over_pairs({}),
    "SupConLoss": over_pairs({}, {"temperature": 1.5}),
    "LiftedStructureLoss": over_pairs(
        *(
            {"form": form, "normalize": normalize, "margin": 1.5}
            for form in ("SONG", "GENERALIZED")
            for normalize in (False, True)
        )
    ),
    "ProxyAnchorLoss": over_classes({}, {"margin": 0.3, "alpha": 8.0}),
    "CenterLoss": over_classes({"update": "GRADIENT"}, {"update": "DELTA"}),
    "Norm": norm_cases,
    "TripletLoss": triplet_cases,
    "RankHardLoss": rank_cases,
    "MarginInnerProduct": margin_cases,
    "MarginSoftmaxLoss": margin_softmax_cases,
}


def every_case(engine):
    for kind, make in MAKERS.items():
        for name, parameters, bottoms, *weights in make():
            spec = Spec(kind, parameters, 1, engine)
            yield f"{engine}-{kind}-{name}", spec, bottoms, weights[0] if weights else None
