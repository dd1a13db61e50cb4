"""The demo: its data, its numbers, its page, and the whole of it on the digits in a few seconds.

Quality is asserted by `./run demo` on Fashion-MNIST only; here the whole is run with short
trainings, to see that everything fits together and that nothing is done twice.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil

import numpy as np
import pytest
from caffe_metric import lint
from caffe_metric.data.lmdb_file import lmdb_names
from caffe_metric.demo import choice, recipes, tables
from caffe_metric.demo.databases import TEST, make_databases
from caffe_metric.demo.images import FASHION_FOLDER, UNSEEN, load_images
from caffe_metric.demo.measure import Measured, measure
from caffe_metric.demo.neighbours import COUNT, neighbours_html, query_rows
from caffe_metric.demo.recipes import EXAMPLES
from caffe_metric.support import paths
from caffe_metric.support.errors import UserError
from caffe_metric.training.process import caffe_tool


@pytest.fixture(scope="module")
def digits():
    return load_images("/no/such/folder")


def test_digits_stand_in_where_fashion_mnist_is_missing(digits):
    assert "digits" in digits.title
    assert len(digits.train.labels) == 1198
    assert digits.pixels().shape == (599, 28, 28)
    assert set(digits.train.labels) == set(digits.test.labels) == set(range(10))


@pytest.mark.skipif(not FASHION_FOLDER.exists(), reason="dataset-fashion-mnist is not installed")
@pytest.mark.slow
def test_raw_pixels_of_fashion_mnist_have_the_known_numbers():
    images = load_images()
    assert len(images.train.labels) == 60000
    pixels = images.pixels().reshape(10000, -1).astype(np.float32)
    found = measure(pixels, images.test.labels, images.unseen())
    assert found.recall_at_1 == pytest.approx(0.852, abs=5e-4)
    assert found.unseen_auc == pytest.approx(0.697, abs=5e-4)
    assert found.roc.far[-1] == 1
    assert found.histograms.sum() == 3000 * 2999 // 2


def test_databases_keep_the_unseen_out_and_are_made_once(digits, tmp_path):
    made = make_databases(digits, tmp_path)
    labels = (tmp_path / "train_pk.lmdb/labels.txt").read_text().split()[1::2]
    assert len(labels) == 10 - len(UNSEEN)
    assert len(lmdb_names(tmp_path / TEST)) == 599
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/data.mdb")}
    assert make_databases(digits, tmp_path) == made
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/data.mdb")} == stamps
    changed = make_databases(digits, tmp_path, seed=7)
    assert changed["train_pk.lmdb"] != made["train_pk.lmdb"]
    assert changed[TEST] == made[TEST]


def test_wrong_neighbours_are_marked_and_counted(rng):
    labels = np.repeat(np.arange(2), 6)
    images = rng.integers(0, 256, (12, 28, 28)).astype(np.uint8)
    # Classes are apart, but row 5 lies beside the others.
    embeddings = np.eye(2)[labels] + 0.01 * rng.normal(size=(12, 2))
    embeddings[5] = [-0.5, 1]
    assert query_rows(labels).tolist() == [0, 6]
    page, wrong, shown = neighbours_html(embeddings, labels, images, ("<a>", "b"), {1})
    assert shown == 2 * COUNT
    assert page.count("class=wrong") == wrong
    # Of the first: 4 right, then 4 wrong; of the other: 5 right, then row 5 and 2 wrong.
    assert wrong == 4 + 3
    assert "&lt;a&gt;" in page
    assert "<a>" not in page
    assert page.count("unseen") == 1


def test_the_losses_share_trunk_and_steps():
    root = paths.tree()
    made = recipes.losses(root)
    assert {recipe.name for recipe in made} == set(recipes.OF_LOSSES)
    example = recipes.examples(root)[0]
    trunk = example.net.partition('name: "train"')[2].partition('name: "norm"')[0]
    for recipe in made:
        assert recipe.solver.replace(recipe.name, "triplet") == example.solver
        ours = recipe.net.partition('name: "train"')[2]
        shared = trunk.replace("train_pk.lmdb", recipes.OF_LOSSES[recipe.name])
        assert ours.startswith(shared[: shared.rindex("layer {")])


@pytest.mark.parametrize("recipe", recipes.losses(paths.tree()), ids=lambda recipe: recipe.name)
def test_lint_has_nothing_to_say_of_the_losses(recipe, tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(recipe.net)
    passed_over = re.compile("this machine's Caffe lacks|is not there")
    found = [one for one in lint.check(str(path)) if not passed_over.search(one.message)]
    assert found == []


@pytest.mark.parametrize("unseen", choice.PLAY_UNSEEN, ids=str)
def test_parameters_are_chosen_without_test_images_and_unseen_classes(digits, unseen):
    split = choice.split(digits, unseen)
    known = set(range(10)) - set(UNSEEN)
    assert set(split.test.labels) == known
    assert set(split.train.labels) == known - set(unseen)
    names = [*split.train.names, *split.test.names]
    assert len(names) == len(set(names))
    assert set(names) <= set(digits.train.names)
    assert set(split.test.labels[split.unseen()]) == set(unseen)


def test_candidates_change_what_they_say():
    root = paths.tree()
    known = recipes.examples(root) + recipes.losses(root)
    made = choice.candidates(known)
    assert {one.title.split(",")[0] for one in made} == set(choice.CANDIDATES)
    nets = {recipe.name: recipe.net for recipe in known}
    assert any(one.net == nets["circle"] for one in made)
    assert all(f"max_iter: {choice.ITERATIONS}" in one.solver for one in made)
    # lambda falls as far as in all iterations.
    whole = re.search(r"max_iter: (\d+)", recipes.examples(root)[0].solver)[1]
    margin = next(one for one in made if one.name == "margin_0")
    before, after = (
        float(re.search(r"\bgamma: (\S+)", net)[1]) for net in (nets["margin"], margin.net)
    )
    assert after * choice.ITERATIONS == pytest.approx(before * int(whole))


def test_tables_have_means_and_ranges_over_the_runs():
    made = [Measured(0.8 + step, 0, 0.6 + step, 0.1, None, None) for step in (0, 0.03)]
    lines = tables.of_seeds({"one": made}).splitlines()
    assert lines[1].split() == [
        *["one", "0.815", "(0.800-0.830)", "0.615", "(0.600-0.630)", "0.100", "(0.100-0.100)"]
    ]
    assert tables.of_candidates({"one": made}).splitlines()[1].split()[-1] == "0.7150"


def test_the_baseline_is_compared_with_the_three():
    made = recipes.compared(paths.tree())
    assert [recipe.name for recipe in made] == [recipes.BASELINE, *EXAMPLES]


@pytest.fixture
def root(tmp_path):
    """A repository with the examples, their trainings cut short."""
    shutil.copytree(paths.tree() / "examples", tmp_path / "examples")
    for example in EXAMPLES.values():
        solver = tmp_path / example / "solver.prototxt"
        solver.write_text(re.sub(r"max_iter: \d+", "max_iter: 40", solver.read_text()))
    (tmp_path / "where it is told").mkdir()
    return tmp_path


@pytest.mark.slow
def test_the_whole_on_the_digits(root, capsys, monkeypatch):
    pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")
    try:
        caffe_tool()
    except UserError:
        pytest.skip("the caffe tool is not built: ./run build")
    from caffe_metric.demo import maps
    from caffe_metric.demo.__main__ import demo

    monkeypatch.setattr(maps, "A_CLASS", 5)
    folder = root / "where it is told"
    first = demo(recipes.compared(root), folder, "/no/such/folder")
    summary = json.loads((folder / "summary.json").read_text())
    assert sorted(path.name for path in root.iterdir()) == ["examples", "where it is told"]
    assert list(summary) == ["pixels", "softmax", "triplet", "rank_hard", "margin"]
    for numbers in summary.values():
        assert {"recall_at_1", "unseen_auc", "unseen_tar_at_far_1"} <= set(numbers)
        assert all(0 < number <= 1 for number in numbers.values())
    # 40 short iterations: learnt something, if not much.
    assert all(one.recall_at_1 > 0.8 for one in first.values())
    page = (folder / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 4 + 2 + 5 + 5 + 5 * 10 * (1 + COUNT)
    without_pictures = re.sub(r'"data:image/png;base64,[^"]*"', "PICTURE", page)
    assert not re.search('href="(?!#)|http|url|src=(?!PICTURE)', without_pictures)
    assert "$" not in page
    assert capsys.readouterr().err == ""
    models = {path: path.stat().st_mtime_ns for path in folder.glob("*.caffemodel")}
    assert len(models) == 4
    again = demo(recipes.compared(root), folder, "/no/such/folder")
    assert capsys.readouterr().out.count("from an earlier run") == 4
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.caffemodel")} == models
    assert again["margin"].unseen_auc == first["margin"].unseen_auc
    # The baseline has the solver of the triplets.
    solver = root / EXAMPLES["triplet"] / "solver.prototxt"
    solver.write_text(solver.read_text().replace("base_lr: 0.001", "base_lr: 0.002"))
    demo(recipes.compared(root), folder, "/no/such/folder")
    assert capsys.readouterr().out.count("from an earlier run") == 2


@pytest.mark.slow
def test_several_seeds_on_the_digits(root):
    pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")
    from caffe_metric.demo.__main__ import with_seeds

    folder = root / "where it is told"
    args = argparse.Namespace(images="/no/such/folder", seeds=[1, 2], force=False, together=2)
    table = with_seeds(recipes.examples(root)[:1], folder, args)
    noted = json.loads((folder / "seeds.json").read_text())
    assert list(noted) == ["1", "2"]
    assert noted["1"]["pixels"] == noted["2"]["pixels"]
    assert noted["1"]["triplet"] != noted["2"]["triplet"]
    mean = (noted["1"]["triplet"]["unseen_auc"] + noted["2"]["triplet"]["unseen_auc"]) / 2
    assert float(table.splitlines()[2].split()[3]) == pytest.approx(mean, abs=1e-3)
