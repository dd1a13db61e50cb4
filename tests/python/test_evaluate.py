"""`caffe-metric eval`: its files and numbers, LFW's protocol, and what goes wrong."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from caffe_metric.evaluation.metrics.pairs import pair_scores, read_pairs
from PIL import Image

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


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_all_pairs(embeddings, tmp_path, command):
    from sklearn.metrics import roc_auc_score

    path, vectors, labels = embeddings
    status, out, err = command("eval", path, "-o", tmp_path / "out")
    assert (status, err) == (0, "")
    numbers = metrics(tmp_path / "out")
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    first, second = np.triu_indices(15, 1)
    scores, same = (unit @ unit.T)[first, second], labels[first] == labels[second]
    found = numbers["verification"]
    assert found["pairs"] == 105
    assert (found["same_pairs"], found["different_pairs"]) == (31, 74)
    assert found["measured_different_pairs"] == 74
    assert found["auc"] == pytest.approx(roc_auc_score(same, scores), abs=1e-6)
    # With 74 different pairs the least FAR that a pair can tell is 0.0135.
    assert set(found["tar_at_far"]) == set(found["threshold_at_far"]) == {"0.1"}
    threshold = found["threshold_at_far"]["0.1"]
    accepted = scores >= threshold - 1e-6
    assert np.count_nonzero(accepted[~same]) == 7  # 8 would be a FAR of 0.108
    assert found["tar_at_far"]["0.1"] == pytest.approx(accepted[same].mean())
    accepted = scores >= found["eer_threshold"] - 1e-6
    errors = accepted[~same].mean(), 1 - accepted[same].mean()
    assert errors == pytest.approx((found["eer"], found["eer"]), abs=1 / 31)
    # Each row has 14 others: whoever is asked for 16 answers all of them.
    recalls = numbers["retrieval"]["recall_at"]
    assert set(recalls) == {"1", "2", "4", "8"}
    order = np.argsort(-(unit @ unit.T - 9 * np.eye(15)), axis=1)
    for k, recall in recalls.items():
        hits = (labels[order[:, : int(k)]] == labels[:, None]).any(axis=1)
        assert recall == pytest.approx(hits.mean())
    assert re.search(rf"^AUC +{found['auc']:.4f}$", out, re.MULTILINE)
    assert re.search(rf"^TAR at FAR 0.1 .*\nits threshold +{threshold:.4f}$", out, re.MULTILINE)
    files = {file.name for file in (tmp_path / "out").iterdir()}
    assert files == {"metrics.json", "roc.png", "histogram.png", "report.html"}


def test_a_threshold_that_no_score_gives(tmp_path, command):
    """Different pairs that share the highest score: at no threshold are so few accepted."""
    np.savez(tmp_path / "f.npz", embeddings=np.ones((8, 2)), labels=np.arange(8) // 2)
    status, out, err = command("eval", tmp_path / "f.npz", "-o", tmp_path / "out")
    assert (status, err) == (0, "")
    found = metrics(tmp_path / "out")["verification"]
    assert found["threshold_at_far"] == {"0.1": None}
    assert found["tar_at_far"] == {"0.1": 0}
    assert "none" in out


def test_classes_are_kept(embeddings, tmp_path, command):
    path, vectors, labels = embeddings
    assert command("eval", path, "--classes", "0,2-2", "-o", tmp_path / "out")[0] == 0
    kept = labels != 1
    np.savez(tmp_path / "kept.npz", embeddings=vectors[kept], labels=labels[kept])
    assert command("eval", tmp_path / "kept.npz", "-o", tmp_path / "same")[0] == 0
    assert metrics(tmp_path / "out") == metrics(tmp_path / "same")
    assert metrics(tmp_path / "out")["rows"] == 11
    status, _, err = command("eval", path, "--classes", "7-9", "-o", tmp_path / "none")
    assert (status, err) == (1, "caffe-metric eval: people: no row has a label of --classes\n")


@pytest.mark.parametrize("classes", ["", "1-", "3-2", "a", "1,,2"])
def test_classes_that_are_none(embeddings, tmp_path, command, classes):
    with pytest.raises(SystemExit) as stop:
        command("eval", embeddings[0], f"--classes={classes}", "-o", tmp_path / "out")
    assert stop.value.code == 2


@pytest.fixture
def faces(tmp_path, rng):
    """A folder with an image of noise for each name, each person of another brightness."""
    for number, name in enumerate(NAMES):
        file = tmp_path / "faces" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        light = 60 * [*PEOPLE].index(name.split("/")[0])
        pixels = (light + rng.integers(0, 60, (40, 32, 3))).astype(np.uint8)
        pixels[:, : 2 * number] = 250
        Image.fromarray(pixels).save(file, "PNG")
    return tmp_path / "faces"


@pytest.mark.slow
def test_several_files_and_raw_pixels_side_by_side(embeddings, faces, tmp_path, command):
    path, vectors, labels = embeddings
    other = tmp_path / "other.npz"
    shuffled = np.random.default_rng(1).permutation(15)
    names = np.array(NAMES)[shuffled]
    np.savez(other, embeddings=vectors[shuffled], labels=labels[shuffled], names=names)
    arguments = (path, other, "--images", faces, "-o", tmp_path / "out")
    status, out, err = command("eval", *arguments)
    assert (status, err) == (0, "")
    numbers = metrics(tmp_path / "out")
    assert list(numbers) == ["pixels", "people", "other"]
    assert out.splitlines()[0].split() == ["pixels", "people", "other"]
    aucs = [f"{numbers[title]['verification']['auc']:.4f}" for title in numbers]
    assert re.search(rf"^AUC +{' +'.join(aucs)}$", out, re.MULTILINE)
    assert aucs[1] == aucs[2] != aucs[0]
    page = (tmp_path / "out" / "report.html").read_text()
    assert f"<th>AUC</th><td>{'</td><td>'.join(aucs)}</td>" in page
    # Twelve pairs of each kind, of each of the three, two pictures a pair, and the two figures.
    assert page.count("<img") == 3 * 2 * 12 * 2 + 2
    gray = [np.asarray(Image.open(faces / name).convert("L").resize((32, 32), 2)) for name in NAMES]
    np.savez(tmp_path / "gray.npz", embeddings=np.reshape(gray, (15, -1)), labels=labels)
    assert command("eval", tmp_path / "gray.npz", "-o", tmp_path / "gray")[0] == 0
    auc = metrics(tmp_path / "gray")["verification"]["auc"]
    assert numbers["pixels"]["verification"]["auc"] == pytest.approx(auc, abs=1e-6)


def test_the_hardest_pairs_are_named(embeddings, tmp_path, command):
    path, vectors, labels = embeddings
    assert command("eval", path, "--hardest", "1", "-o", tmp_path / "out")[0] == 0
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = unit @ unit.T
    page = (tmp_path / "out" / "report.html").read_text()
    for same, pick in ((True, np.argmin), (False, np.argmax)):
        pairs = [(i, j) for j in range(15) for i in range(j) if (labels[i] == labels[j]) == same]
        left, right = pairs[pick([scores[pair] for pair in pairs])]
        spans = [
            f"{scores[left, right]:.4f}",
            *(f"{NAMES[i]} ({labels[i]})" for i in (left, right)),
        ]
        assert "".join(f"<span>{text}</span>" for text in spans) in page


def test_images_that_do_not_belong(embeddings, faces, tmp_path, command):
    (faces / NAMES[3]).unlink()
    status, _, err = command("eval", embeddings[0], "--images", faces, "-o", tmp_path / "out")
    assert (status, err.count("\n")) == (1, 1)
    assert f"no image '{NAMES[3]}', which people has" in err
    np.savez(tmp_path / "f.npz", embeddings=np.eye(15), labels=embeddings[2])
    arguments = ("--images", faces, "-o", tmp_path / "out")
    status, _, err = command("eval", tmp_path / "f.npz", *arguments)
    assert (status, err.count("\n")) == (1, 1)
    assert "14 images; f has 15 rows" in err


def test_a_file_given_twice(embeddings, tmp_path, command):
    status, _, err = command("eval", embeddings[0], embeddings[0], "-o", tmp_path / "out")
    assert (status, err.count("\n")) == (1, 1)
    assert "given twice" in err


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
    scores = np.array([unit[i] @ unit[j] for i, j in zip(left, right)])
    np.testing.assert_allclose(pair_scores(unit, left, right), scores, rtol=1e-5)
    status, out, err = command("eval", path, "--pairs", pairs, "-o", tmp_path / "out")
    assert (status, err) == (0, "")
    found = metrics(tmp_path / "out")["verification"]
    assert (found["pairs"], found["same_pairs"]) == (8, 4)
    accuracies = []
    for held in (0, 1):
        # Four pairs of the other fold: the best cut between two of their scores.
        ordered = np.sort(scores[fold != held])[::-1]
        edges = [ordered[0] + 1, *(ordered[1:] + ordered[:-1]) / 2, ordered[-1] - 1]
        judged = [np.mean((scores[fold != held] >= t) == same[fold != held]) for t in edges]
        threshold = edges[int(np.argmax(judged))]
        accuracies.append(np.mean((scores[fold == held] >= threshold) == same[fold == held]))
    assert found["folds"] == pytest.approx(accuracies)
    assert found["accuracy"] == pytest.approx(np.mean(accuracies))
    assert re.search(rf"^accuracy +{np.mean(accuracies):.4f} \+- ", out, re.MULTILINE)


def test_lfw_pairs_of_one_set(tmp_path):
    """The header of LFW's development sets: so many pairs of each kind."""
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("10\n" + "Bo 1 2\n" * 10 + "Bo 1 Cy_X 2\n" * 10)
    _, _, same, fold = read_pairs(pairs, NAMES)
    assert same.tolist() == [True] * 10 + [False] * 10
    assert fold.tolist() == [*range(10)] * 2


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
        ("2 1\nBo 1 2\nBo 1 3\n", "2 pairs; the header counts 2 x 1 of each kind, 4 in all"),
        ("2 1\n" + "Bo 1 2\nBo 1 3\n" * 2, "pair 3 must be of two people"),
        ("2 1\n" + "Bo 1 Cy_X 2\nBo 1 3\n" * 2, "pair 2 must be of one person"),
        ("2 0\nBo 1 2\n", "the header counts 2 folds of 0 pairs"),
        ("1 1\nBo 1 2\nBo 1 Cy_X 2\n", "one fold"),
        ("1\nBo 1 2\nBo 1 Cy_X 2\n", "1 pairs of a kind are not enough for 10 folds"),
        (f"{NAMES[0]} {NAMES[1]} 1\n" * 10, "pairs of both kinds"),
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
