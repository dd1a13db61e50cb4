"""The scripts that `./run` hands over to: what they refuse, and what they leave alone."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from caffe_trees import make_tree

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


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A clone with one commit, which stands in for that of BVLC/caffe."""
    top = tmp_path / "clone"
    (top / "scripts").mkdir(parents=True)
    (top / "CMakeLists.txt").write_text("project(Caffe)\r\n")
    (top / "scripts/run.sh").write_text("#!/bin/sh\n")
    (top / "scripts/run.sh").chmod(0o755)

    def git(*arguments):
        who = ["-c", "user.name=x", "-c", "user.email=x@y"]
        command = ["git", "-C", str(top), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "x")
    monkeypatch.setattr(fetch_caffe, "COMMIT", git("rev-parse", "HEAD"))
    monkeypatch.setattr(fetch_caffe, "TREE", git("rev-parse", "HEAD^{tree}"))
    monkeypatch.setattr(fetch_caffe, "download", lambda directory: pytest.fail("downloads"))
    return top


def test_a_checkout_takes_the_downloads_place(checkout, tmp_path):
    (checkout / "CMakeLists.txt").write_text("edited since\n")
    (checkout / "build.log").write_text("not of the commit\n")
    fetch_caffe.fetch(tmp_path / "download", tmp_path / "source", checkout)
    assert (tmp_path / "source/CMakeLists.txt").read_bytes() == b"project(Caffe)\r\n"
    assert os.access(tmp_path / "source/scripts/run.sh", os.X_OK)
    assert not (tmp_path / "source/build.log").exists()


def test_a_copy_of_its_files_does_too_and_another_is_refused(checkout, tmp_path):
    plain = tmp_path / "plain"
    shutil.copytree(checkout, plain, ignore=shutil.ignore_patterns(".git"))
    before = contents(plain)
    fetch_caffe.fetch(tmp_path / "download", tmp_path / "source", plain)
    assert contents(tmp_path / "source") == before == contents(plain)
    (plain / "CMakeLists.txt").write_text("another\n")
    with pytest.raises(fetch_caffe.FetchError, match="is not BVLC/caffe at .*the hash"):
        fetch_caffe.fetch(tmp_path / "download", tmp_path / "source2", plain)
    with pytest.raises(fetch_caffe.FetchError, match="no such folder"):
        fetch_caffe.fetch(tmp_path / "download", tmp_path / "source2", tmp_path / "none")
    assert not (tmp_path / "source2").exists()


def test_a_users_archive_with_a_wrong_checksum_stays(tmp_path):
    for name in fetch_caffe.SHA256:
        (tmp_path / name).write_bytes(b"not it")
    with pytest.raises(fetch_caffe.FetchError, match="has the checksum .*, not .*"):
        fetch_caffe.fetch(tmp_path / "download", tmp_path / "source", tmp_path)
    assert all((tmp_path / name).read_bytes() == b"not it" for name in fetch_caffe.SHA256)


def test_a_download_that_fails_says_what_else_there_is(monkeypatch):
    monkeypatch.setattr(fetch_caffe.shutil, "which", lambda name: None)
    with pytest.raises(fetch_caffe.FetchError, match="no apt-get.*CAFFE_SOURCE.*checkout.*99bd997"):
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


def test_what_is_left_out_of_the_copy_is_named(source, tmp_path, capsys):
    (source / "build_tools").mkdir()
    (source / "build_tools/helper.cpp").write_text("int helper;\n")
    prepare_tree.prepare(source, tmp_path / "tree", patched=False)
    [note] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    for name in ("build/", "build_tools/", "models/a.caffemodel"):
        assert name in note
    assert ".git" not in note
    assert not (tmp_path / "tree/build_tools").exists()


def test_the_patcher_gets_its_arguments(tmp_path):
    top = make_tree(tmp_path, files={"src/caffe/layers/norm_layer.cpp": "int theirs;\n"})
    (top / "CMakeLists.txt").write_text("project(Caffe)\n")
    with pytest.raises(prepare_tree.TreeError, match="CAFFE_PATCH_ARGS=--replace puts ours"):
        prepare_tree.prepare(top, tmp_path / "tree", patched=True)
    prepare_tree.prepare(top, tmp_path / "tree", patched=True, arguments=("--replace",))
    assert "int theirs" not in (tmp_path / "tree/src/caffe/layers/norm_layer.cpp").read_text()
    assert (top / "src/caffe/layers/norm_layer.cpp").read_text() == "int theirs;\n"


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


# --- the steps of run -------------------------------------------------------------------------


def shell(script, path=None, **environment):
    """Runs lines of shell with the steps of `run` at hand."""
    parts = "for part in steps packages; do . cmake/$part.sh; done\n"
    return subprocess.run(
        ["/bin/sh", "-euc", f"root=$PWD logs=${{TMPDIR:-/tmp}}\n{parts}{script}"],
        cwd=ROOT,
        env={**os.environ, **({"PATH": str(path)} if path else {}), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


BOOST = """\
-- Boost version: 1.74.0
CMake Error at /usr/lib/cmake/Boost-1.74.0/BoostConfig.cmake:141 (find_package):
  Could not find a package configuration file provided by "boost_regex"
  (requested version 1.74.0) with any of the following names:

    boost_regexConfig.cmake

Call Stack (most recent call first):
"""


@pytest.mark.parametrize(
    ("log", "says"),
    [
        (BOOST, 'provided by "boost_regex".*package libboost-regex-dev'),
        ("a.cpp:3:10: fatal error: snappy.h: No such file or directory\n", "libsnappy-dev"),
        ("/usr/bin/ld: cannot find -lhdf5_hl: No such file\n", "libhdf5-dev"),
        ("b.hpp:9:10: fatal error: mkl_vsl.h: No such file or directory\n", "wants Intel's MKL"),
        ("/x.so: undefined reference to `F<float>::Forward_gpu'\n", "undefined reference.*see"),
        ("error: one's own words\n", "^one's own words$"),
        ("ninja: stopped\nlast words\nninja: stopped\n", "last words; see"),
    ],
)
def test_a_failure_says_what_is_missing_and_what_brings_it(tmp_path, log, says):
    path = tmp_path / "step.log"
    path.write_text(log)
    done = shell(f"explain '{path}'")
    assert done.returncode == 0, done.stderr
    assert re.search(says, done.stdout.strip()), done.stdout
    assert done.stdout.count("\n") == 1


def test_a_step_shows_its_notes(tmp_path):
    done = shell("step 'A step' a sh -c 'echo note: b is left out; echo c'", TMPDIR=str(tmp_path))
    assert re.fullmatch(r"A step +\d+ s\n  b is left out\n", done.stdout), done.stderr


def test_jobs_are_bounded_by_cores_and_memory(tmp_path):
    available = int(re.search(r"MemAvailable: +(\d+)", Path("/proc/meminfo").read_text())[1]) >> 21
    for cores in (1, 100000):
        (tmp_path / "nproc").write_text(f"#!/bin/sh\necho {cores}\n")
        (tmp_path / "nproc").chmod(0o755)
        found = int(shell("compile_jobs", PATH=f"{tmp_path}:{os.environ['PATH']}").stdout)
        assert 1 <= found <= cores
        assert found <= max(1, 2 * available)


@pytest.fixture
def without_dpkg(tmp_path):
    """A PATH with the tools of a shell, and no dpkg."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("sh", "awk", "cut", "tr", "sed", "paste", "cat", "date", "mkdir", "id"):
        (folder / tool).symlink_to(shutil.which(tool))
    return folder


def test_without_dpkg_the_things_themselves_are_looked_for(without_dpkg):
    done = shell("packages build faster", path=without_dpkg)
    assert done.returncode == 1
    assert "cmake (cmake)" in done.stderr
    assert "lmdb.h (liblmdb-dev)" in done.stderr
    assert "hdf5.h or hdf5/serial/hdf5.h (libhdf5-dev)" in done.stderr
    assert "ccache" not in done.stderr
    assert "shellcheck" not in done.stderr
    assert done.stderr.count("\n") == 1
    for tool in ("cmake", "ninja", "protoc", "python3", "python3-config", "c++"):
        (without_dpkg / tool).write_text("#!/bin/sh\nexit 0\n")  # a c++ that has every header
        (without_dpkg / tool).chmod(0o755)
    done = shell("packages build faster", path=without_dpkg)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_header_is_there_whose_own_includes_are_elsewhere(tmp_path):
    (tmp_path / "outer.hpp").write_text("#include <no/such/header.h>\n")
    look = "for one in outer.hpp inner.hpp stdio.h; do is_there $one && echo $one; done || :"
    assert shell(look, CPATH=str(tmp_path)).stdout.split() == ["outer.hpp", "stdio.h"]


def test_a_target_asks_for_no_more_than_it_needs():
    build = shell("package_rows build faster").stdout
    assert "ninja-build" in build
    assert "shellcheck" not in build
    assert "context" not in build
    assert shell("package_rows lint").stdout.split()[0] == "shellcheck"
    everything = shell("package_rows build faster source test lint older").stdout
    listed = [line.split() for line in (ROOT / "cmake/packages.txt").read_text().splitlines()]
    listed = [row for row in listed if row and row[0] != "#"]
    assert [line.split() for line in everything.splitlines()] == listed
    assert all(len(row) >= 3 for row in listed)


@pytest.mark.parametrize("home", [None, "/nowhere/at/all"])
def test_without_a_home_ccache_stays_in_the_build(home):
    environment = {k: v for k, v in os.environ.items() if k not in ("CCACHE_DIR", "HOME")}
    if home:
        environment["HOME"] = home
    [line] = [line for line in (ROOT / "run").read_text().splitlines() if "CCACHE_DIR" in line]
    done = subprocess.run(
        ["/bin/sh", "-euc", f'root=/project\n{line}\necho "$CCACHE_DIR"'],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "/project/build/ccache\n"


def test_a_cuda_toolkit_of_the_system_is_taken():
    look = ". cmake/cuda.sh; echo $cuda_toolkit"
    own = shell(look, CUDA_TOOLKIT="").stdout
    assert own.endswith("/build/cuda-toolkit/nvidia/cu13\n")
    # and no other is installed
    look = f"python=false; {look}; toolkit"
    assert shell(look, CUDA_TOOLKIT="/usr/local/cuda").stdout == "/usr/local/cuda\n"


def test_arguments_reach_caffes_cmake_and_the_patcher(tmp_path):
    if not shutil.which("cmake") or not shutil.which("ninja"):
        pytest.skip("needs cmake and ninja")
    command = ["cmake", "-S", str(ROOT), "-B", str(tmp_path), "-G", "Ninja"]
    subprocess.run(
        [
            *command,
            f"-DPYTHON={sys.executable}",
            '-DCAFFE_ARGUMENTS=-DBLAS=Atlas "-DCMAKE_CXX_FLAGS=-g -O1"',
            "-DPATCH_ARGUMENTS=--replace --without a,b",
        ],
        check=True,
        capture_output=True,
    )
    [line] = re.findall(r"cmd='.*'", (tmp_path / "caffe/tmp/caffe-cfgcmd.txt").read_text())
    arguments = line.split(";")
    assert arguments.index("-DBLAS=Atlas") > arguments.index("-DBLAS=Open")  # the last one counts
    assert "-DCMAKE_CXX_FLAGS=-g -O1" in arguments
    rules = (tmp_path / "build.ninja").read_text()
    assert '"--patch-arguments=--replace --without a,b"' in rules
