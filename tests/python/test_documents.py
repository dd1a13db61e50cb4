"""Every code block of README, CONTRIBUTING and docs/: run, or read, or marked as output."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys

import numpy as np
import pytest
from caffe_metric.support import paths
from harness import need
from PIL import Image

TOOL = paths.tree() / "cmake" / "documents.py"
if not TOOL.is_file():
    pytest.skip("an installed package has no docs", allow_module_level=True)
sys.path.append(str(TOOL.parent))
documents = importlib.import_module("documents")

PAGES = documents.pages()
WALK = documents.walk()
PICTURES = documents.ROOT / "docs" / "pictures"
# Why a block is not run; its commands' arguments, files and syntax are checked all the same.
REASONS = {
    "minutes": "a build, a whole training, a download",
    "your files": "nets, images or logs that the reader has",
    "Caffe's sources, root": "changes the system",
    "GPUs": "none is at hand",
    "several processes": "mpirun, or a process a GPU",
}


def has_runs(page):
    try:
        found = documents.blocks(page)
    except documents.Fault:  # of which the first test tells
        return False
    return any(map(documents.is_run, found))


def name(page):
    return str(page.relative_to(documents.ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_is_code_that_reads_or_marked_as_output(page):
    for block in documents.blocks(page):
        documents.check(block)
        if "needs" in block.attributes:
            assert block.attributes["needs"] in REASONS, block.line


@pytest.mark.parametrize("page", ["docs/troubleshooting.md", "docs/zh/troubleshooting.md"])
def test_remedies_are_commands_that_exist(page):
    text = (documents.ROOT / page).read_text(encoding="utf-8")
    found = re.findall(r"`((?:caffe-metric|\./run) [^`]+)`", text)
    assert len(found) > 15
    for line in found:
        for words in documents.command_lines(line):
            if len(words) > 2 or words[0] == "./run":  # more than a command's name
                documents.check_command(words)


def test_each_command_has_a_page_with_a_run():
    from caffe_metric.commands import COMMANDS

    assert sorted(page.stem for page in WALK[1:]) == sorted(COMMANDS)
    for page in WALK:
        found = documents.blocks(page)
        assert any(block.language == "output" and block.text.strip() for block in found), page
        assert any(f"caffe-metric {page.stem} " in b.text for b in found) or page == WALK[0]


@pytest.mark.slow
def test_the_commands_print_what_their_pages_say(tmp_path):
    need("cpp")
    for module in ("cv2", "onnxruntime", "skimage", "sklearn"):
        pytest.importorskip(module)
    if not (documents.ROOT / "build" / "source").is_dir():
        pytest.skip("Caffe's source is not there: ./run build")
    assert documents.run_pages(WALK, tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if page not in WALK and has_runs(page)], ids=name
)
def test_a_page_runs(page, tmp_path):
    need("cpp")
    assert documents.run_pages([page], tmp_path) == []


def written(tmp_path, monkeypatch, text):
    monkeypatch.setattr(documents, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(text)
    (tmp_path / "sandbox").mkdir()
    return page, tmp_path / "sandbox"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("```\nls\n```\n", "no language"),
        ("```perl\n1\n```\n", "perl language"),
        ("Like this:\n\n    ls\n", "without fences"),
        ("```sh\nfalse\n```\n", "exit status 1"),
        ("```sh\necho 1\n```\n```output\n2\n```\n", "it prints now"),
        ("```python\nx = 1 / 0\n```\n", "ZeroDivisionError"),
        (
            "```python\nx = 1\n```\nthen\n```python\nprint(x)\n```\n```output\n2\n```\n",
            "prints now",
        ),
        ('```sh needs="minutes"\ncaffe-metric lint net.prototxt --no-such\n```\n', "no-such"),
        ('```sh needs="minutes"\n./run nothing\n```\n', "no target nothing"),
        ('```sh needs="minutes"\ncat examples/none.txt\n```\n', "no such file"),
        ('```python needs="GPUs"\nx =\n```\n', "invalid syntax"),
        ("```json\n{\n```\n", "page.md:1"),
    ],
)
def test_what_is_wrong_is_seen(tmp_path, monkeypatch, text, fault):
    page, sandbox = written(tmp_path, monkeypatch, text)
    (tmp_path / "run").write_text("  build  all\n")
    try:
        found = documents.run_pages([page], sandbox)
    except documents.Fault as error:
        found = [str(error)]
    assert len(found) == 1
    assert fault in found[0]


@pytest.mark.parametrize("text", ['layer { name: "x" typo: "Norm" }', "layer {"])
def test_a_prototxt_is_read(tmp_path, monkeypatch, text):
    page, sandbox = written(tmp_path, monkeypatch, f"```prototxt\n{text}\n```\n")
    assert len(documents.run_pages([page], sandbox)) == 1


def test_output_is_written_into_the_page(tmp_path, monkeypatch):
    page, sandbox = written(
        tmp_path, monkeypatch, "```sh\necho 1; echo 2\n```\n```output\nold\n```\nend\n"
    )
    assert documents.run_pages([page], sandbox, write=True) == []
    assert page.read_text() == "```sh\necho 1; echo 2\n```\n```output\n1\n2\n```\nend\n"


@pytest.mark.parametrize(
    ("wanted", "printed", "same"),
    [
        ("loss 0.50 in 3 s", "loss 0.52 in 900 s", True),
        ("loss 0.50", "loss 0.60", False),
        ("7 classes", "8 classes", False),
        ("a\n...\nd", "a\nb\nc\nd", True),
        ("a\n...\nd", "a\nb\nc", False),
        ("a", "a\nb", False),
    ],
)
def test_outputs_are_alike_but_for_rounding_and_times(wanted, printed, same):
    assert documents.alike(wanted, printed) is same


def test_reasons_are_in_use():
    assert set(documents.not_run(PAGES)) <= set(REASONS)


def test_every_loss_stands_beside_its_picture():
    from caffe_metric import suite

    text = (documents.ROOT / "docs" / "losses.md").read_text(encoding="utf-8")
    parts = dict(re.findall(r"^### (.+)\n((?:(?!^##).*\n)*)", text, re.MULTILINE))
    for row in suite.NATIVE:
        if row.loss:
            part = next(part for title, part in parts.items() if row.type in title)
            for what in ("](pictures/", "$$", "**When**", "**While training**", "**Cost**"):
                assert what in part, (row.type, what)


def test_pictures_are_small_and_tell_their_command():
    texts = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    tools = {tool.stem for tool in (TOOL.parent / "pictures").glob("*.py")}
    assert all(f"cmake/pictures/{tool}.py" in texts for tool in tools)
    for path in PICTURES.iterdir():
        assert path.stat().st_size < 150_000, path
        assert f"pictures/{path.name}" in texts


@pytest.mark.slow
def test_pictures_of_losses_are_made_by_their_command(tmp_path):
    pytest.importorskip("matplotlib")
    tool = TOOL.parent / "pictures" / "losses.py"
    subprocess.run([sys.executable, tool, tmp_path], check=True, capture_output=True)
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {path.name for path in PICTURES.iterdir()} - {"demo.png"}
    for name in made:
        new, kept = (
            np.asarray(Image.open(folder / name).convert("L"), float)
            for folder in (tmp_path, PICTURES)
        )
        # The same picture but for the dots of a rounding.
        assert new.shape == kept.shape
        assert np.mean(np.abs(new - kept) > 64) < 0.01, name
