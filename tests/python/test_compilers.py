"""Old compilers: what goes into a Caffe tree is C++11, without any compiler's extensions.

Each compiler that is installed (c++, clang++, and those with a version in their name) reads the
headers of the mathematics and the layers; Caffe's own headers are taken as the system's. What the
library of gcc 4.9 lacks of C++11 is known by name. Left out: warnings, which differ from one
version to the next; the gtests, which tests/systems/debian11.sh compiles so.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

caffe = pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")

ROOT = Path(__file__).resolve().parents[2]
TREE = Path(caffe.__file__).resolve().parents[2]
if not (ROOT / "src" / "caffe").is_dir() or not (TREE / "build" / "include").is_dir():
    pytest.skip("needs a checkout, and the tree that ./run build makes", allow_module_level=True)

FLAGS = ["-std=c++11", "-Wall", "-Wextra", "-pedantic-errors", "-fsyntax-only"]
# Of C++11, and not in the library of gcc 4.9.
NOT_IN_GCC_4_9 = re.compile(
    r"\bis_trivially_(?:copy|default|move|assign|constr)\w*|\baligned_union\b|\bstd::align\b"
    r"|\b(?:put|get)_(?:time|money)\b|\b(?:hex|default)float\b|\bcodecvt\b"
    r"|\bnotify_all_at_thread_exit\b"
)
NUMBERED = re.compile(r"(?:clang\+\+|g\+\+)-[\d.]+")


def compilers():
    """Names of compilers; one that has several names, by the first."""
    folders = [Path(name) for name in os.environ.get("PATH", "").split(os.pathsep)]
    names = {path.name for folder in folders if folder.is_dir() for path in folder.iterdir()}
    numbered = sorted(name for name in names if NUMBERED.fullmatch(name))
    found = {}
    for name in ["c++", "clang++", *numbered]:
        if shutil.which(name):
            found.setdefault(os.path.realpath(shutil.which(name)), name)
    return list(found.values())


@pytest.fixture
def sources(tmp_path):
    """The layers, and one file that includes all headers."""
    headers = sorted((ROOT / "include" / "caffe_metric").glob("*.hpp"))
    of_headers = tmp_path / "headers.cpp"
    of_headers.write_text("".join(f'#include "caffe_metric/{path.name}"\n' for path in headers))
    return [of_headers, *sorted((ROOT / "src" / "caffe").rglob("*.cpp"))]


def check(compiler, path):
    """What the compiler says against a file; nothing where it takes it."""
    includes = [f"-I{ROOT / 'include'}"]
    for folder in (TREE / "include", TREE / "build" / "include", Path("/usr/include/hdf5/serial")):
        includes += ["-isystem", str(folder)]
    done = subprocess.run(
        [compiler, *FLAGS, "-DCPU_ONLY", *includes, "-x", "c++", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return "" if done.returncode == 0 else f"{path.name}: {done.stdout}"


@pytest.mark.slow
@pytest.mark.parametrize("compiler", compilers())
def test_what_goes_into_a_tree_is_cxx_11(compiler, sources):
    assert len(sources) > 15
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        faults = list(filter(None, pool.map(lambda path: check(compiler, path), sources)))
    assert not faults, "\n".join(faults)


def test_no_name_is_missing_in_gcc_4_9():
    folders = [ROOT / "include", ROOT / "src" / "caffe", ROOT / "tests" / "cpp"]
    files = [path for folder in folders for path in folder.rglob("*.*") if path.is_file()]
    assert len(files) > 100
    for path in files:
        assert not NOT_IN_GCC_4_9.findall(path.read_text(encoding="utf-8")), path
    assert NOT_IN_GCC_4_9.search("std::is_trivially_copyable<T>::value")
    assert NOT_IN_GCC_4_9.search("std::align(a, b, c, d)")


def test_the_check_sees_what_is_younger(tmp_path):
    path = tmp_path / "young.cpp"
    path.write_text("auto f() { return 1; }\nint g() { return f(); }\n")
    assert "young.cpp" in check("c++", path)
    path.write_text("int g(int n) { int a[n]; return sizeof(a); }\n")  # an extension of gcc's
    assert "young.cpp" in check("c++", path)
