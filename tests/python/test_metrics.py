"""Verification, retrieval and clustering against naive loops and scikit-learn.

Sizes are awkward on purpose: ties, duplicate rows, a class of one, D = 1, blocks that do not
divide.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from caffe_metric.evaluation.metrics import clustering, retrieval, verification
from caffe_metric.evaluation.metrics.similarity import (
    pair_similarities,
    similarity_blocks,
    unit_rows,
)


def cosine(u, v):
    norm = np.sqrt(float(u @ u)) * np.sqrt(float(v @ v))
    return float(u @ v) / norm if norm else 0.0


def embed(rng, rows, dimension, classes):
    labels = rng.integers(0, classes, rows)
    centres = rng.normal(size=(classes, dimension))
    return (centres[labels] + rng.normal(size=(rows, dimension))).astype(np.float64), labels


def test_unit_rows_survive_any_scale():
    rows = np.array([[3.0, 4.0], [0.0, 0.0], [3e200, 4e200], [3e-200, -4e-200]])
    expected = [[0.6, 0.8], [0, 0], [0.6, 0.8], [0.6, -0.8]]
    np.testing.assert_allclose(unit_rows(rows), expected, rtol=1e-6)


def test_bad_embeddings():
    with pytest.raises(ValueError, match="row 1 is not finite"):
        unit_rows([[1.0, 2.0], [np.nan, 1.0]])
    with pytest.raises(ValueError, match=r"\[N, D\] expected"):
        unit_rows(np.zeros(3))


@pytest.mark.parametrize("block", [1, 3, 7, 100])
def test_each_pair_comes_once(rng, block):
    embeddings, labels = embed(rng, 11, 3, 4)
    blocks = list(pair_similarities(embeddings, labels, block))
    scores = np.concatenate([scores for scores, _ in blocks])
    same = np.concatenate([kind for _, kind in blocks])
    expected = [
        (cosine(embeddings[i], embeddings[j]), labels[i] == labels[j])
        for i, j in itertools.combinations(range(11), 2)
    ]
    np.testing.assert_allclose(sorted(scores), sorted(score for score, _ in expected), atol=1e-6)
    assert same.sum() == sum(kind for _, kind in expected)
    assert sum(len(rows) for _, rows in similarity_blocks(embeddings, block)) == 11


def naive_rates(scores, same, threshold):
    accepted = scores >= threshold
    return np.mean(accepted[~same]), np.mean(accepted[same])


def test_roc_against_loops_and_sklearn(rng):
    from sklearn.metrics import roc_auc_score

    same = rng.random(301) < 0.3
    scores = np.round(rng.normal(size=301) + same, 1)  # many ties
    curve = verification.roc(scores, same)
    for far, tar, threshold in zip(curve.far[1:], curve.tar[1:], curve.threshold[1:]):
        assert (far, tar) == pytest.approx(naive_rates(scores, same, threshold))
    assert curve.auc() == pytest.approx(roc_auc_score(same, scores), abs=1e-12)
    wins = [(a > b) + 0.5 * (a == b) for a in scores[same] for b in scores[~same]]
    assert curve.auc() == pytest.approx(np.mean(wins), abs=1e-12)
    for target in (0, 0.003, 0.01, 0.1, 1):
        best = max(
            tar
            for far, tar in [(0.0, 0.0)] + [naive_rates(scores, same, t) for t in set(scores)]
            if far <= target
        )
        assert curve.tar_at(target) == pytest.approx(best)
    far, tar = naive_rates(scores, same, curve.threshold_at(0.1))
    assert far <= 0.1
    assert tar == curve.tar_at(0.1)


def test_eer_lies_where_both_errors_meet(rng):
    same = np.arange(20000) % 2 == 0
    scores = rng.normal(size=20000) + 2.0 * same
    # Two unit normals at distance 2 meet at one standard deviation: Phi(-1).
    assert verification.roc(scores, same).eer() == pytest.approx(0.1587, abs=0.01)
    perfect = verification.roc([3.0, 2, 1, 0], [True, True, False, False])
    assert (perfect.eer(), perfect.auc()) == (0, 1)
    assert verification.roc([0.0, 1, 2, 3], [True, True, False, False]).eer() == 1
    assert verification.roc([1.0, 1, 1, 1], [True, True, False, False]).eer() == 0.5


def test_binned_roc_is_the_exact_one_to_the_bin(rng):
    embeddings, labels = embed(rng, 211, 7, 5)
    exact = verification.roc_of_all_pairs(embeddings, labels)
    binned = verification.roc_of_all_pairs(embeddings, labels, exact_pairs=0)
    assert binned.auc() == pytest.approx(exact.auc(), abs=1e-5)
    assert binned.tar_at(0.01) == pytest.approx(exact.tar_at(0.01), abs=1e-3)
    assert binned.eer() == pytest.approx(exact.eer(), abs=1e-3)


def test_a_thinned_roc_keeps_its_ends_and_shape(rng):
    same = rng.random(30000) < 0.5
    curve = verification.roc(rng.normal(size=30000) + same, same)
    thin = curve.thinned(200)
    assert len(thin.far) <= 201
    assert (thin.far[0], thin.tar[0], thin.far[-1], thin.tar[-1]) == (0, 0, 1, 1)
    assert thin.auc() == pytest.approx(curve.auc(), abs=1e-3)


def test_one_kind_of_pair_only():
    with pytest.raises(ValueError, match="pairs of both kinds"):
        verification.roc([0.5, 0.1], [True, True])
    with pytest.raises(ValueError, match="pairs of both kinds"):
        verification.roc_of_all_pairs(np.eye(3), [1, 1, 1])
    with pytest.raises(ValueError, match="pairs of both kinds"):
        verification.roc_of_all_pairs(np.eye(1), [1])


def test_fold_accuracies_against_a_search_of_all_thresholds(rng):
    same = np.tile([True, False], 30)
    scores = np.round(rng.normal(size=60) + 1.3 * same, 1)
    fold = np.repeat(np.arange(6), 10)
    accuracies = verification.fold_accuracies(scores, same, fold)
    for held in range(6):
        train = fold != held
        cuts = np.unique(scores[train])
        best = max(
            np.mean((scores[train] >= t) == same[train]) for t in [*cuts, cuts[-1] + 1, cuts[0] - 1]
        )
        threshold = verification.best_threshold(scores[train], same[train])
        assert np.mean((scores[train] >= threshold) == same[train]) == best
        test = ~train
        assert accuracies[held] == np.mean((scores[test] >= threshold) == same[test])
    with pytest.raises(ValueError, match="two folds"):
        verification.fold_accuracies(scores, same, np.zeros(60))


def naive_neighbours(embeddings, row):
    unit = unit_rows(embeddings)
    others = [other for other in range(len(unit)) if other != row]
    return sorted(others, key=lambda other: (-(unit[row] @ unit[other]), other))


@pytest.mark.parametrize(("rows", "dimension"), [(2, 1), (9, 1), (33, 3), (70, 33)])
def test_retrieval_against_loops(rng, rows, dimension):
    embeddings, labels = embed(rng, rows, dimension, 4)
    labels[:2] = 0
    # Few distinct rows of exact coordinates: ties, in which the lower row comes first.
    embeddings = np.round(embeddings) if dimension == 1 else embeddings
    recalls = {1: [], 4: []}
    maps, precisions = [], []
    for row in range(rows):
        relevant = np.count_nonzero(labels == labels[row]) - 1
        if not relevant:
            continue
        right = [labels[other] == labels[row] for other in naive_neighbours(embeddings, row)]
        for k, values in recalls.items():
            values.append(any(right[:k]))
        hits = [sum(right[: i + 1]) / (i + 1) for i in range(relevant) if right[i]]
        maps.append(sum(hits) / relevant)
        precisions.append(sum(right[:relevant]) / relevant)
    found = retrieval.recall_at(embeddings, labels, (1, 4))
    assert found == pytest.approx({k: np.mean(values) for k, values in recalls.items()})
    expected = pytest.approx((np.mean(maps), np.mean(precisions)))
    assert retrieval.map_at_r(embeddings, labels) == expected


def test_nearest_breaks_ties_by_row():
    embeddings = np.ones((5, 2))
    assert retrieval.nearest(embeddings, 2).tolist() == [[1, 2], [0, 2], [0, 1], [0, 1], [0, 1]]
    assert retrieval.nearest(embeddings[:1], 3).shape == (1, 0)


def test_retrieval_needs_a_partner():
    with pytest.raises(ValueError, match="two rows"):
        retrieval.recall_at(np.eye(3), [0, 1, 2])


def test_nmi_of_separate_and_of_mixed_classes(rng):
    labels = np.repeat(np.arange(3), 40)
    centres = np.eye(3)[labels]
    assert clustering.nmi(centres + 0.01 * rng.normal(size=(120, 3)), labels) == pytest.approx(1)
    assert clustering.nmi(rng.normal(size=(120, 3)), labels) < 0.2
