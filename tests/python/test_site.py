"""The site of `./run docs`: whole, searched, and read as files, without a network."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import browser
import pytest
from caffe_metric.support import paths

TOOL = paths.tree() / "cmake" / "site" / "build.py"
pytest.importorskip("mkdocs", reason="mkdocs is not installed: ./run docs")
pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed: ./run docs")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not TOOL.is_file(), reason="an installed package has no docs"),
]


def build(*arguments):
    return subprocess.run(
        [sys.executable, TOOL, *map(str, arguments)], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site") / "docs"
    done = build(out)
    assert done.returncode == 0, done.stderr
    return out


def test_every_page_is_there_and_in_the_search(site):
    tree = paths.tree()
    found = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    searched = {entry["location"].partition("#")[0] for entry in found["docs"]}
    pages = [*tree.glob("docs/**/*.md"), *tree.glob("examples/**/README.md")]
    assert len(pages) > 30
    for page in pages:
        name = str(page.relative_to(tree).with_suffix(".html")).replace("README", "index")
        assert (site / name).is_file(), name
        assert name in searched
    text = " ".join(entry["text"] for entry in found["docs"])
    assert "87.3" in text
    api = " ".join(entry["text"] for entry in found["docs"] if entry["location"].startswith("api/"))
    assert "verification, retrieval" in api


def test_formulas_are_drawn_without_a_script(site):
    page = (site / "docs" / "reference" / "sup_con_loss.html").read_text(encoding="utf-8")
    assert "<math" in page
    assert "arithmatex" not in page


def test_a_link_or_anchor_that_leads_nowhere_is_named(tmp_path):
    tree = tmp_path / "tree"
    for name in ("docs", "examples", "tests/hostcuda", "python/caffe_metric"):
        shutil.copytree(
            paths.tree() / name, tree / name, ignore=shutil.ignore_patterns("*.so", "__pycache__")
        )
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"):
        shutil.copy(paths.tree() / name, tree / name)
    with (tree / "docs" / "speed.md").open("a") as file:
        file.write("\n[a](nowhere.md) [b](losses.md#no-such-part)\n")
    done = build(tmp_path / "out", "--tree", tree)
    assert done.returncode == 1
    assert "nowhere.md" in done.stderr
    assert "no-such-part" in done.stderr


@pytest.mark.skipif(not browser.PROGRAM, reason="Debian's chromium is not installed")
def test_it_is_searched_as_a_file(site, tmp_path):
    with browser.Browser(tmp_path / "profile") as chromium:
        chromium.open((site / "index.html").as_uri() + "?q=87.3")
        found = chromium.evaluate(
            "new Promise(done => { let left = 100; const look = () => {"
            " const links = [...document.querySelectorAll('.md-search-result__link')];"
            " if (links.length || !left--) done(links.map(link => link.getAttribute('href')));"
            " else setTimeout(look, 100); }; look(); })"
        )
        assert any("troubleshooting" in link for link in found)
        loaded = chromium.evaluate(
            "performance.getEntriesByType('resource').map(entry => entry.name)"
        )
        assert all(one.startswith(("file:", "data:", "blob:")) for one in loaded)
