"""The scripts that `./run` hands over to: what they refuse, and what they leave alone."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
if not (ROOT / "cmake").is_dir():
    pytest.skip("an installed package has no build scripts", allow_module_level=True)


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "cmake" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fetch_caffe = load("fetch_caffe")
prepare_tree = load("prepare_tree")


# --- fetch_caffe.py ---------------------------------------------------------------------------


def test_a_wrong_checksum_is_refused_and_set_aside(tmp_path):
    for name in fetch_caffe.SHA256:
        (tmp_path / name).write_bytes(b"not it")
    with pytest.raises(fetch_caffe.FetchError, match="has the checksum .*, not .*"):
        fetch_caffe.fetch(tmp_path, tmp_path / "source")
    assert len(list(tmp_path.glob("*.wrong"))) == 1
    assert not (tmp_path / "source").exists()


def test_a_source_that_is_there_is_not_fetched_again(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch_caffe, "download", lambda directory: pytest.fail("downloads"))
    (tmp_path / "source").mkdir()
    fetch_caffe.fetch(tmp_path / "download", tmp_path / "source")
    assert not (tmp_path / "download").exists()


@pytest.mark.parametrize(
    ("listed", "site"),
    [
        ("Debian-Security|s://a/security\nDebian|s://b/debian\n", "s://b/debian"),
        ("Other|s://c\n|s://a/security\n|s://b/debian\n", "s://b/debian"),  # before an update
    ],
)
def test_the_main_archive_is_found_among_the_configured_ones(monkeypatch, listed, site):
    monkeypatch.setattr(fetch_caffe, "run", lambda command, failure: listed)
    assert fetch_caffe.configured_site() == site


def test_a_machine_without_debian_sources_is_told_so(monkeypatch):
    monkeypatch.setattr(fetch_caffe, "run", lambda command, failure: "Ubuntu|s://c\n")
    with pytest.raises(fetch_caffe.FetchError, match="no package source of Debian.*CAFFE_ROOT"):
        fetch_caffe.configured_site()


# --- prepare_tree.py --------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path):
    """A tree in miniature, with a break that is mended."""
    top = tmp_path / "source"
    files = {
        "CMakeLists.txt": "project(Caffe)\n",
        "src/caffe/proto/caffe.proto": 'syntax = "proto2";\npackage caffe;\n',
        "src/caffe/util/io.cpp": "coded_input->SetTotalBytesLimit(kLimit, 536870912);\n",
        "src/caffe/net.cpp": "int net;\n",
        ".git/HEAD": "ref\n",
        "build/lib/libcaffe.so": "old\n",
        "models/a.caffemodel": "weights\n",
    }
    for name, content in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(content)
    return top


def contents(top):
    return {str(p.relative_to(top)): p.read_bytes() for p in top.rglob("*") if p.is_file()}


def age(top):
    """Makes every file an hour old; the time that it then has."""
    before = int((top / "CMakeLists.txt").stat().st_mtime) - 3600
    for path in top.rglob("*"):
        os.utime(path, (before, before))
    return before


def test_the_copy_is_mended_and_the_source_left_alone(source, tmp_path):
    before = contents(source)
    prepare_tree.prepare(source, tmp_path / "tree", patched=False)
    tree = contents(tmp_path / "tree")
    assert contents(source) == before
    assert tree["src/caffe/util/io.cpp"] == b"coded_input->SetTotalBytesLimit(kLimit);\n"
    assert tree["src/caffe/net.cpp"] == b"int net;\n"
    assert not {".git/HEAD", "build/lib/libcaffe.so", "models/a.caffemodel"} & set(tree)


def test_only_what_changed_is_written_again(source, tmp_path):
    tree = tmp_path / "tree"
    prepare_tree.prepare(source, tree, patched=False)
    (tree / "build").mkdir()
    (tree / "build" / "product.o").write_text("built")
    old = age(tree)
    (source / "src/caffe/net.cpp").write_text("int other;\n")
    prepare_tree.prepare(source, tree, patched=False)
    changed = {
        str(path.relative_to(tree))
        for path in tree.rglob("*")
        if path.is_file() and path.stat().st_mtime > old
    }
    assert changed == {"src/caffe/net.cpp", ".prepared.json"}
    assert (tree / "build" / "product.o").read_text() == "built"


def test_a_file_that_came_or_went_configures_again(source, tmp_path):
    tree = tmp_path / "tree"
    prepare_tree.prepare(source, tree, patched=False)
    old = age(tree)
    (source / "src/caffe/net.cpp").rename(source / "src/caffe/web.cpp")
    prepare_tree.prepare(source, tree, patched=False)
    assert not (tree / "src/caffe/net.cpp").exists()
    assert (tree / "src/caffe/web.cpp").exists()
    assert (tree / "CMakeLists.txt").stat().st_mtime > old


def test_a_second_call_does_nothing(source, tmp_path):
    tree = tmp_path / "tree"
    prepare_tree.prepare(source, tree, patched=False)
    old = age(tree)
    prepare_tree.prepare(source, tree, patched=False)
    assert all(path.stat().st_mtime == old for path in tree.rglob("*"))


def test_what_is_no_caffe_tree_is_refused(tmp_path):
    with pytest.raises(prepare_tree.TreeError, match="is no Caffe tree: it has no CMakeLists.txt"):
        prepare_tree.prepare(tmp_path, tmp_path / "tree", patched=True)


# --- run --------------------------------------------------------------------------------------


def run(*arguments):
    return subprocess.run(
        [ROOT / "run", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_run_alone_lists_the_targets():
    done = run()
    assert done.returncode == 0
    targets = ("build", "demo", "test", "bench", "lint", "cuda", "cuda-caffe", "clean")
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    assert set(targets) <= set(listed)


def test_run_refuses_what_is_no_target():
    done = run("biuld")
    assert done.returncode == 2
    assert "biuld: no such target" in done.stderr
