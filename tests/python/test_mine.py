"""`caffe-metric mine`: every triplet is one by its definition, and the files say the same.

Distances are computed anew by loops. FAISS, where it is installed, against the exact search.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from caffe_metric.data.mining import mine
from caffe_metric.evaluation.metrics import neighbours, others
from caffe_metric.evaluation.metrics.similarity import unit_rows


@pytest.fixture
def rows(rng):
    labels = np.append(rng.integers(0, 4, 60), 9)  # the last has no partner
    return rng.normal(size=(61, 3)) + 2 * np.eye(10, 3)[labels], labels


def distance(embeddings, a, b):
    u, v = (embeddings[row] / np.sqrt((embeddings[row] ** 2).sum()) for row in (a, b))
    return float(((u - v) ** 2).sum())


def near(embeddings, labels, anchor, count):
    """The `count` rows of other classes that are nearest to an anchor, nearest first."""
    others = [row for row in range(len(embeddings)) if labels[row] != labels[anchor]]
    return sorted(others, key=lambda row: distance(embeddings, anchor, row))[:count]


@pytest.mark.parametrize(("negatives", "neighbours"), [(1, 20), (3, 20), (2, 60)])
def test_semihard_finds_each_candidate_and_no_other(rng, negatives, neighbours):
    """Two rows a class, so that an anchor's positive, and with it its candidates, are known."""
    labels = np.append(np.arange(60) // 2, 99)  # the last has no partner
    embeddings = rng.normal(size=(61, 3))
    embeddings[1::2] = embeddings[:60:2] + 0.3 * rng.normal(size=(30, 3))
    candidates = {}
    for anchor in range(60):
        d_ap = distance(embeddings, anchor, anchor ^ 1)
        found = [
            row
            for row in near(embeddings, labels, anchor, neighbours)
            if d_ap < distance(embeddings, anchor, row) < d_ap + 0.3
        ]
        if len(found) >= negatives:
            candidates[anchor] = set(found)
    drawn = {anchor: set() for anchor in candidates}
    for seed in range(200):
        draws = np.random.default_rng(seed)
        triplets = mine(embeddings, labels, "semihard", 0.3, negatives, neighbours, draws)
        assert triplets[:, 0].tolist() == sorted(candidates)
        assert (triplets[:, 1] == triplets[:, 0] ^ 1).all()
        for anchor, _, *chosen in triplets.tolist():
            assert len(set(chosen)) == negatives
            drawn[anchor].update(chosen)
    assert 10 < len(candidates) < 60
    assert drawn == candidates


@pytest.mark.parametrize("neighbours", [2, 60])
def test_hard_takes_the_nearest(rows, neighbours):
    embeddings, labels = rows
    expected = {anchor: near(embeddings, labels, anchor, 2) for anchor in range(60)}
    found = mine(embeddings, labels, "hard", negatives=2, neighbours=neighbours).tolist()
    assert {anchor: chosen for anchor, _, *chosen in found} == expected


def test_vgg_takes_all_that_violate_the_margin(rows):
    embeddings, labels = rows
    for seed in range(20):
        draws = np.random.default_rng(seed)
        for a, p, n in mine(embeddings, labels, "vgg", 0.1, 1, 60, draws).tolist():
            assert labels[a] == labels[p] != labels[n]
            assert distance(embeddings, a, n) < distance(embeddings, a, p) + 0.1


def test_an_anchor_without_enough_negatives_gives_none():
    labels = np.array([0, 0, 0, 1])
    embeddings = np.array([[1, 0], [1, 0.1], [1, 0.2], [0, 1.0]])
    assert len(mine(embeddings, labels, "hard", negatives=2)) == 0
    assert mine(embeddings, labels, "hard", neighbours=3)[:, [0, 2]].tolist() == [
        [0, 3],
        [1, 3],
        [2, 3],
    ]


@pytest.mark.parametrize("faiss", [False, True])
@pytest.mark.slow
def test_an_identity_with_more_images_than_neighbours_gets_negatives(rng, monkeypatch, faiss):
    """300 images of each of ten, and ten of one image, that FAISS finds one by one or together."""
    if faiss:
        pytest.importorskip("faiss")
        monkeypatch.setattr(neighbours, "SMALL", 0)
        monkeypatch.setattr(others, "MOST_BEYOND", 100)
    labels = np.append(np.repeat(np.arange(10), 300), np.arange(10, 20))
    embeddings = rng.normal(size=(20, 8))[labels] + 0.1 * rng.normal(size=(3010, 8))
    triplets = mine(embeddings, labels, "hard", negatives=3, neighbours=20)
    assert triplets[:, 0].tolist() == list(range(3000))
    similarities = unit_rows(embeddings) @ unit_rows(embeddings).T
    similarities[labels[:, None] == labels] = -np.inf
    nearest = np.argsort(-similarities[:3000], axis=1)[:, :3]
    assert (np.take_along_axis(similarities[:3000], triplets[:, 2:], 1) > -np.inf).all()
    assert (triplets[:, 2:] == nearest).mean() > 0.999  # float32 ties


@pytest.mark.slow
def test_clusters_find_most_of_the_nearest(rng, monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr(neighbours, "SMALL", 0)
    monkeypatch.setattr(neighbours, "EXACT_ROWS", 0)
    monkeypatch.setattr(others, "MOST_BEYOND", 100)
    labels = np.append(np.repeat(np.arange(400), 20), np.repeat(400, 300))
    embeddings = rng.normal(size=(401, 8))[labels] + 0.3 * rng.normal(size=(8300, 8))
    triplets = mine(embeddings, labels, "hard", negatives=5, neighbours=20)
    assert len(triplets) == 8300
    similarities = (unit_rows(embeddings) @ unit_rows(embeddings).T).astype(np.float32)
    similarities[labels[:, None] == labels] = -np.inf
    nearest = np.argsort(-similarities, axis=1)[:, :5]
    shared = [len(set(a) & set(b)) / 5 for a, b in zip(triplets[:, 2:].tolist(), nearest.tolist())]
    assert np.mean(shared) > 0.9
    assert (labels[triplets[:, 2:]] != labels[triplets[:, :1]]).all()


def test_positives_are_drawn_evenly(rng):
    labels = np.zeros(4, int)
    labels = np.append(labels, 1)
    embeddings = rng.normal(size=(5, 2))
    counts = np.zeros((5, 5))
    for seed in range(300):
        draws = mine(embeddings, labels, "hard", rng=np.random.default_rng(seed))
        counts[draws[:, 0], draws[:, 1]] += 1
    assert (counts[:4, :4][~np.eye(4, dtype=bool)] > 60).all()  # 100 expected, sd 8
    assert not counts[4].any()
    assert not np.diag(counts).any()


def test_command_writes_names_and_groups(rows, tmp_path, command):
    embeddings, labels = rows
    names = [f"p{label}/{row}.png" for row, label in enumerate(labels)]
    np.savez(tmp_path / "f.npz", embeddings=embeddings, labels=labels, names=names)
    arguments = ("-o", tmp_path / "t.txt", "--list", tmp_path / "l.txt", "--negatives", "2")
    status, out, err = command("mine", tmp_path / "f.npz", "--strategy", "hard", *arguments)
    assert (status, err) == (0, "")
    assert "60 of 61 anchors" in out
    triplets = [line.split() for line in (tmp_path / "t.txt").read_text().splitlines()]
    listed = [line.split() for line in (tmp_path / "l.txt").read_text().splitlines()]
    assert [name for row in triplets for name in row] == [name for name, _ in listed]
    assert all(name.startswith(f"p{label}/") for name, label in listed)
    assert all(row[0][:2] == row[1][:2] != row[2][:2] for row in triplets)


def test_nothing_found_is_one_line(tmp_path, command):
    np.savez(tmp_path / "f.npz", embeddings=np.eye(3), labels=[0, 1, 2])
    status, _, err = command("mine", tmp_path / "f.npz", "-o", tmp_path / "t.txt")
    assert status == 1
    assert "no triplets" in err
    assert not (tmp_path / "t.txt").exists()
    more = ("--negatives", 9, "--neighbours", 8)
    status, _, err = command("mine", tmp_path / "f.npz", "-o", tmp_path / "t.txt", *more)
    assert (status, err.count("\n")) == (1, 1)
    assert "9 negatives of 8 neighbours: look at more" in err


@pytest.mark.skipif(not importlib.util.find_spec("faiss"), reason="faiss-cpu is not installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_faiss_finds_what_the_exact_search_finds(rng, monkeypatch):
    unit = unit_rows(rng.normal(size=(300, 8)))
    unit[7] = unit[5]  # a duplicate finds itself second
    expected = neighbours.nearest_rows(unit, 10)
    naive = [np.argsort(-(unit @ unit[row]), kind="stable") for row in range(300)]
    naive = [[other for other in order if other != row][:10] for row, order in enumerate(naive)]
    assert (expected == naive).mean() > 0.99
    monkeypatch.setattr(neighbours, "SMALL", 10)
    found = neighbours.nearest_rows(unit, 10)
    assert (np.sort(found) == np.sort(expected)).mean() > 0.99
    monkeypatch.setattr(neighbours, "EXACT_ROWS", 10)
    clusters = neighbours.nearest_rows(unit, 10)
    overlap = [len(set(a) & set(b)) for a, b in zip(clusters, expected)]
    assert np.mean(overlap) > 9
    assert not (clusters == np.arange(300)[:, None]).any()
