"""Verification, retrieval and clustering against naive loops and scikit-learn.

Sizes are awkward on purpose: ties, duplicate rows, a class of one, D = 1, blocks that do not
divide.
"""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
from caffe_metric.evaluation.metrics import clustering, neighbours, retrieval, verification
from caffe_metric.evaluation.metrics.all_pairs import HISTOGRAM_BINS, all_pairs
from caffe_metric.evaluation.metrics.similarity import unit_rows, upper_tiles


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


def naive_pairs(embeddings, labels):
    """(scores, same) of all pairs, by loops."""
    found = [
        (cosine(embeddings[i], embeddings[j]), labels[i] == labels[j])
        for i, j in itertools.combinations(range(len(labels)), 2)
    ]
    return np.array([score for score, _ in found]), np.array([same for _, same in found])


@pytest.mark.parametrize(("block", "tile"), [(1, 1), (3, 2), (3, 7), (100, 5), (4, 100)])
def test_each_pair_comes_once(rng, block, tile):
    embeddings, labels = embed(rng, 11, 3, 4)
    seen = np.zeros((11, 11), int)
    for rows, columns, scores, wanted in upper_tiles(unit_rows(embeddings), block, tile):
        kept = np.ones(scores.shape, bool) if wanted is None else wanted
        seen[rows, columns] += kept
        for i, j in zip(*np.nonzero(kept)):
            expected = cosine(embeddings[rows.start + i], embeddings[columns.start + j])
            assert scores[i, j] == pytest.approx(expected, abs=1e-6)
    assert (seen == np.triu(np.ones((11, 11), int), 1)).all()


def naive_rates(scores, same, threshold):
    accepted = scores >= threshold
    return np.mean(accepted[~same]), np.mean(accepted[same])


def test_roc_against_loops_and_sklearn(rng):
    from sklearn.metrics import roc_auc_score

    same = rng.random(301) < 0.3
    scores = np.round(rng.normal(size=301) + same, 1)  # many ties
    curve = verification.roc(scores, same)
    cuts = sorted(set(scores), reverse=True)
    assert curve.threshold.tolist() == [np.inf, *cuts]
    expected = [(0.0, 0.0)] + [naive_rates(scores, same, cut) for cut in cuts]
    np.testing.assert_allclose(np.c_[curve.far, curve.tar], expected)
    assert curve.auc() == pytest.approx(roc_auc_score(same, scores), abs=1e-12)
    wins = [(a > b) + 0.5 * (a == b) for a in scores[same] for b in scores[~same]]
    assert curve.auc() == pytest.approx(np.mean(wins), abs=1e-12)
    for target in (0, 0.003, 0.01, 0.1, 1):
        # The lowest score that may be accepted: so few different pairs reach it.
        allowed = [cut for cut in cuts if naive_rates(scores, same, cut)[0] <= target]
        lowest = min(allowed, default=np.inf)
        assert curve.threshold_at(target) == lowest
        assert curve.tar_at(target) == pytest.approx(naive_rates(scores, same, lowest)[1])
    errors = [naive_rates(scores, same, cut) for cut in cuts]
    nearest = min(range(len(cuts)), key=lambda i: abs(errors[i][0] - (1 - errors[i][1])))
    assert curve.eer_threshold() == cuts[nearest]


def test_eer_lies_where_both_errors_meet(rng):
    same = np.arange(20000) % 2 == 0
    scores = rng.normal(size=20000) + 2.0 * same
    # Two unit normals at distance 2 meet at one standard deviation: Phi(-1).
    assert verification.roc(scores, same).eer() == pytest.approx(0.1587, abs=0.01)
    perfect = verification.roc([3.0, 2, 1, 0], [True, True, False, False])
    assert (perfect.eer(), perfect.auc()) == (0, 1)
    assert verification.roc([0.0, 1, 2, 3], [True, True, False, False]).eer() == 1
    assert verification.roc([1.0, 1, 1, 1], [True, True, False, False]).eer() == 0.5


@pytest.mark.parametrize("how", ["kept", "counted", "drawn"])
def test_all_pairs_against_loops(rng, how):
    """Scores that are kept; counted in bins; and, above a limit, the different ones drawn."""
    embeddings, labels = embed(rng, 211, 7, 5)
    unit = unit_rows(embeddings)
    scores, same = naive_pairs(embeddings, labels)
    limits = {"kept": {}, "counted": {"exact": 0}, "drawn": {"exact": 0, "most": 0}}[how]
    if how == "drawn":
        limits["most"] = 211 * 150  # 150 of the 211 rows meet all others
    found = all_pairs(unit, labels, hardest=4, **limits)
    assert found.counts[0] == same.sum()
    assert found.of_different == (~same).sum()
    assert found.hardest["same"] == worst(unit, labels, scores, same, 1)
    far, tar = found.roc.far, found.roc.tar
    assert (np.diff(far) >= 0).all() and (np.diff(tar) >= 0).all()
    loose = 0.02 if how == "drawn" else 1e-5
    exact = verification.roc(scores, same)
    assert found.roc.auc() == pytest.approx(exact.auc(), abs=loose)
    assert found.roc.eer() == pytest.approx(exact.eer(), abs=max(loose, 1e-3))
    spread = scores[same].var() + scores[~same].var()
    fisher = (scores[same].mean() - scores[~same].mean()) ** 2 / spread
    assert found.fisher() == pytest.approx(fisher, rel=max(loose * 5, 1e-4))
    if how == "drawn":
        assert found.counts[1] < 150 * 211
        return
    assert found.counts[1] == (~same).sum()
    assert found.hardest["different"] == worst(unit, labels, scores, same, -1)
    histogram = [np.histogram(scores[kind], HISTOGRAM_BINS)[0] for kind in (same, ~same)]
    assert np.abs(found.histograms - histogram).sum() <= 8  # a score at the edge of two bins
    for far in (0.1, 0.01):
        threshold = found.roc.threshold_at(far)
        assert threshold == pytest.approx(exact.threshold_at(far), abs=1e-5)


@pytest.mark.slow
def test_memory_beyond_the_rows_is_bounded(rng, monkeypatch):
    """20,000 rows: their similarities would be 1.6 GB, their pairs' scores 0.8 GB."""
    unit = unit_rows(rng.normal(size=(20_000, 16)))
    labels = np.arange(20_000) // 4
    tracemalloc.start()
    try:
        found = all_pairs(unit, labels, hardest=8)
        assert found.counts == (30_000, 199_960_000)
        monkeypatch.setattr(retrieval, "EXACT_ROWS", 10_000)
        assert retrieval.retrieve(unit, labels)["queries"] == 20_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 500 << 20


def worst(unit, labels, scores, same, sign):
    """The four same pairs that are least similar (1), different ones that are most (-1)."""
    pairs = list(itertools.combinations(range(len(labels)), 2))
    kind = [i for i in range(len(pairs)) if same[i] == (sign > 0)]
    kind.sort(key=lambda i: sign * scores[i])
    return [(*pairs[i], pytest.approx(scores[i], abs=1e-6)) for i in kind[:4]]


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
    for rows, labels in ((3, [1, 1, 1]), (3, [1, 2, 3]), (1, [1])):
        for limits in ({}, {"exact": -1}, {"exact": -1, "most": -1}):
            with pytest.raises(ValueError, match="pairs of both kinds"):
                all_pairs(unit_rows(np.eye(rows)), labels, **limits)


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
        # Between two cuts each threshold judges the others alike, but not the held-out pairs: it
        # is the middle of the gap below the best cut.
        judged = [np.mean((scores[train] >= t) == same[train]) for t in cuts]
        at = len(cuts) - 1 - int(np.argmax(judged[::-1]))
        assert judged[at] == best
        threshold = (cuts[at] + (cuts[at - 1] if at else cuts[at] - 2)) / 2
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
    found = retrieval.retrieve(unit_rows(embeddings), labels, (1, 4))
    expected = {k: np.mean(values) for k, values in recalls.items() if k < rows - 1}
    assert found["recall_at"] == pytest.approx(expected)
    assert found["map_at_r"] == pytest.approx(np.mean(maps))
    assert found["r_precision"] == pytest.approx(np.mean(precisions))
    assert found["queries"] == found["of_queries"] == len(maps)


def test_of_many_rows_some_ask(rng, monkeypatch):
    embeddings, labels = embed(rng, 300, 4, 12)
    unit = unit_rows(embeddings)
    whole = retrieval.retrieve(unit, labels, (1,))
    monkeypatch.setattr(retrieval, "EXACT_ROWS", 100)
    monkeypatch.setattr(retrieval, "QUERIES", 200)
    drawn = retrieval.retrieve(unit, labels, (1,))
    assert (drawn["queries"], drawn["of_queries"]) == (200, whole["of_queries"])
    for name in ("map_at_r", "r_precision"):
        assert drawn[name] != whole[name]
        assert drawn[name] == pytest.approx(whole[name], abs=0.05)
    monkeypatch.setattr(retrieval, "QUERIES", 300)
    assert retrieval.retrieve(unit, labels, (1,)) == whole


def test_nearest_breaks_ties_by_row():
    unit = unit_rows(np.ones((5, 2)))
    expected = [[1, 2], [0, 2], [0, 1], [0, 1], [0, 1]]
    assert neighbours.nearest_rows(unit, 2).tolist() == expected
    assert neighbours.nearest_rows(unit[:1], 3).shape == (1, 0)


def test_retrieval_needs_a_partner():
    with pytest.raises(ValueError, match="two rows"):
        retrieval.retrieve(unit_rows(np.eye(3)), [0, 1, 2])


def test_nmi_against_its_formula(rng):
    """Rows at the corners of k-means' own clusters: whom it puts together is known."""
    corners = np.repeat(np.arange(3), 40)
    unit = unit_rows(np.eye(3)[corners] + 0.01 * rng.normal(size=(120, 3)))
    assert clustering.nmi(unit, corners) == pytest.approx(1)
    labels = np.tile([0, 0, 0, 1, 2], 24)
    joint = np.array(
        [[np.mean((corners == c) & (labels == k)) for k in range(3)] for c in range(3)]
    )
    rows, columns = joint.sum(axis=1), joint.sum(axis=0)
    mutual = sum(p * np.log(p / (rows[c] * columns[k])) for (c, k), p in np.ndenumerate(joint) if p)
    entropies = [-(p * np.log(p)).sum() for p in (rows, columns)]
    expected = mutual / np.mean(entropies)
    assert clustering.nmi(unit, labels) == pytest.approx(expected, abs=1e-9)
    shifted = np.where(np.arange(120) % 4 == 0, (corners + 1) % 3, corners)
    assert 0.2 < clustering.nmi(unit, shifted) < 0.6


def test_nmi_is_left_out_where_it_takes_too_long(monkeypatch):
    monkeypatch.setattr(clustering, "MOST", 5)
    assert clustering.nmi(unit_rows(np.eye(3)), [0, 1, 2]) is None
