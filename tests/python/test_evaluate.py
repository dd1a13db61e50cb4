"""`caffe-metric eval`: its files and numbers, LFW's protocol, and what goes wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
from caffe_metric.evaluation.metrics.pairs import pair_scores, read_pairs

PEOPLE = {"Ann_Lee": 5, "Bo": 4, "Cy_X": 6}
NAMES = [
    f"{name}/{name}_{i:04d}.jpg" for name, count in PEOPLE.items() for i in range(1, count + 1)
]


@pytest.fixture
def embeddings(tmp_path, rng):
    """An .npz of 15 images of three people: (path, embeddings, labels)."""
    labels = np.repeat(np.arange(3), list(PEOPLE.values()))
    vectors = (np.eye(3)[labels] + 0.4 * rng.normal(size=(15, 3))).astype(np.float32)
    path = tmp_path / "people.npz"
    np.savez(path, embeddings=vectors, labels=labels, names=NAMES)
    return path, vectors, labels


def test_all_pairs(embeddings, tmp_path, command):
    from sklearn.metrics import roc_auc_score

    path, vectors, labels = embeddings
    status, out, err = command("eval", path, "-o", tmp_path / "out")
    assert (status, err) == (0, "")
    numbers = json.loads((tmp_path / "out/metrics.json").read_text())
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    first, second = np.triu_indices(15, 1)
    scores, same = (unit @ unit.T)[first, second], labels[first] == labels[second]
    verification = numbers["verification"]
    assert verification["pairs"] == 105
    assert verification["auc"] == pytest.approx(roc_auc_score(same, scores), abs=1e-6)
    assert set(verification["tar_at_far"]) == {"0.1", "0.01", "0.001", "0.0001"}
    assert set(numbers["retrieval"]["recall_at"]) == {"1", "2", "4", "8", "16"}
    assert numbers["retrieval"]["recall_at"]["16"] == 1
    assert 0 <= numbers["clustering"]["nmi"] <= 1
    assert f"AUC               {verification['auc']:.4f}" in out
    files = {file.name for file in (tmp_path / "out").iterdir()}
    assert files == {"metrics.json", "roc.png", "histogram.png"}


def test_lfw_pairs(embeddings, tmp_path, command):
    path, vectors, _ = embeddings
    pairs = tmp_path / "pairs.txt"
    pairs.write_text(
        "2\t2\nAnn_Lee\t1\t4\nBo\t1\t2\nAnn_Lee\t1\tBo\t3\nCy_X\t2\tBo\t1\n"
        "Cy_X\t1\t6\nAnn_Lee\t2\t3\nCy_X\t1\tAnn_Lee\t5\nBo\t4\tCy_X\t3\n"
    )
    left, right, same, fold = read_pairs(pairs, NAMES)
    assert left.tolist() == [0, 5, 0, 10, 9, 1, 9, 8]
    assert right.tolist() == [3, 6, 7, 5, 14, 2, 4, 11]
    assert same.tolist() == [True, True, False, False] * 2
    assert fold.tolist() == [0] * 4 + [1] * 4
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = [unit[i] @ unit[j] for i, j in zip(left, right)]
    np.testing.assert_allclose(pair_scores(vectors, left, right), expected, rtol=1e-5)
    status, out, err = command("eval", path, "--pairs", pairs, "-o", tmp_path / "out")
    assert (status, err) == (0, "")
    verification = json.loads((tmp_path / "out/metrics.json").read_text())["verification"]
    assert verification["pairs"] == 8
    assert len(verification["folds"]) == 2
    assert verification["accuracy"] == pytest.approx(np.mean(verification["folds"]))
    assert "accuracy" in out


def test_plain_pairs(tmp_path):
    pairs = tmp_path / "pairs.txt"
    pairs.write_text(f"{NAMES[0]} {NAMES[1]} 1\n{NAMES[0]} {NAMES[9]} 0\n" * 10)
    left, right, same, fold = read_pairs(pairs, NAMES)
    assert left.tolist() == [0] * 20
    assert right.tolist() == [1, 9] * 10
    assert same.tolist() == [True, False] * 10
    assert np.bincount(fold).tolist() == [2] * 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("2 1\n", "no pairs"),
        ("2 1\nBo 1 2\nBo 1\n", "pair 3: `NAME I J` or"),
        ("2 1\nBo 1 9\n", "pair 2: Bo_0009 has no embedding"),
        ("2 1\nBo 1 x\n", "pair 2: "),
        ("a.jpg b.jpg 1\n", "pair 1: a.jpg has no embedding"),
        (f"{NAMES[0]} {NAMES[1]} 2\n", "`FILE FILE 0|1` expected"),
        (f"{NAMES[0]} {NAMES[1]} 1\n", "1 pairs are not enough for 10 folds"),
        ("2 1\nBo 1 2\nBo 1 3\n", "pairs of both kinds"),
    ],
)
def test_bad_pairs_are_one_line(embeddings, tmp_path, command, text, message):
    pairs = tmp_path / "pairs.txt"
    pairs.write_text(text)
    status, _, err = command("eval", embeddings[0], "--pairs", pairs, "-o", tmp_path / "out")
    assert status == 1
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"embeddings": np.eye(3)}, "has no array 'labels'"),
        ({"embeddings": np.eye(3), "labels": np.arange(2)}, "embeddings (3, 3) and labels (2,)"),
        ({"embeddings": np.empty((0, 3)), "labels": np.arange(0)}, "empty"),
        ({"embeddings": np.diag([1, np.nan, 1]), "labels": [0, 0, 1]}, "holds NaN or Inf"),
        ({"embeddings": np.eye(3), "labels": [1, 1, 1]}, "pairs of both kinds"),
    ],
)
def test_bad_embeddings_are_one_line(tmp_path, command, arrays, message):
    np.savez(tmp_path / "f.npz", **arrays)
    status, _, err = command("eval", tmp_path / "f.npz", "-o", tmp_path / "out")
    assert status == 1
    assert message in err
    assert err.count("\n") == 1


def test_a_file_that_is_no_npz(tmp_path, command):
    (tmp_path / "f.npz").write_text("no zip")
    assert command("eval", tmp_path / "f.npz", "-o", tmp_path / "out")[0] == 1
    assert command("eval", tmp_path / "g.npz", "-o", tmp_path / "out")[0] == 1


def test_pairs_need_names(tmp_path, command):
    np.savez(tmp_path / "f.npz", embeddings=np.eye(3), labels=[0, 0, 1])
    status, _, err = command("eval", tmp_path / "f.npz", "--pairs", "p.txt", "-o", tmp_path / "out")
    assert status == 1
    assert "'names'" in err
