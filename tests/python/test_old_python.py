"""The package on Python 3.8, NumPy 1.17, protobuf 3.6 and PyYAML 5.1, the oldest that it takes.

Syntax is held by ruff's target version. Here: names of the standard library that are younger, and,
where such a Python and a package index are at hand, the oldest and the newest versions, installed
and used. tests/systems/pythons.sh runs the Pythons between, and more tests on each.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from caffe_metric.support.extras import EXTRAS
from caffe_metric.support.strings import without_prefix, without_suffix
from package_wheel import build_wheel

ROOT = Path(__file__).resolve().parents[2]
if not (ROOT / "setup.py").is_file():
    pytest.skip("an installed package has no build scripts", allow_module_level=True)

# Attributes, and names imported, that Python 3.8 has not.
YOUNGER = {
    "BooleanOptionalAction", "StrEnum", "TaskGroup", "aclosing", "anext", "batched", "bit_count",
    "cache", "chdir", "hardlink_to", "is_relative_to", "lcm", "nextafter",
    "pairwise", "randbytes", "removeprefix", "removesuffix", "stdlib_module_names",
    "to_thread", "unparse", "waitstatus_to_exitcode", "with_stem",
}  # fmt: skip
# Modules, with whose name the attribute is an older thing.
OLDER = {("tarfile", "chdir"), ("os", "chdir")}
# And of NumPy 1.17.
YOUNGER_NUMPY = {
    "broadcast_shapes", "sliding_window_view", "NDArray", "ArrayLike", "trapezoid", "vecdot",
    "unique_values", "unique_counts", "unique_inverse", "astype", "concat", "permute_dims",
}  # fmt: skip
KEYWORDS = {"zip": {"strict"}, "write_text": {"newline"}, "count_nonzero": {"keepdims"}}


def young_names(source: str) -> list[str]:
    """What a text uses that is too young, as "line: name"."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            numpy = owner == "np" and node.attr in YOUNGER_NUMPY
            if numpy or (node.attr in YOUNGER and (owner, node.attr) not in OLDER):
                found.append(f"{node.lineno}: {node.attr}")
        elif isinstance(node, ast.ImportFrom):
            names = YOUNGER | (YOUNGER_NUMPY if (node.module or "").startswith("numpy") else set())
            found += [f"{node.lineno}: {name.name}" for name in node.names if name.name in names]
        elif isinstance(node, ast.Call):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            for keyword in node.keywords:
                if keyword.arg in KEYWORDS.get(called, ()):
                    found.append(f"{node.lineno}: {called}({keyword.arg}=)")
    return found


def package_files():
    return sorted((ROOT / "python").rglob("*.py"))


@pytest.mark.parametrize("path", package_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_name_is_younger_than_python_3_8(path):
    assert young_names(path.read_text(encoding="utf-8")) == []


def test_the_check_sees_younger_names():
    text = "y = x.removeprefix('b')\nfrom functools import cache\n\nzip(x, x, strict=True)"
    assert young_names(text) == ["2: cache", "4: zip(strict=)", "1: removeprefix"]
    assert young_names("import os\nos.chdir('/')\nnp.zeros(3).astype(float)") == []


@pytest.mark.parametrize(("text", "part"), [("abc", "ab"), ("abc", "x"), ("", "a"), ("abc", "")])
def test_what_strings_gained_in_3_9(text, part):
    start = text[len(part) :] if text[: len(part)] == part else text
    assert without_prefix(text, part) == start
    end = text[: len(text) - len(part)] if text[len(text) - len(part) :] == part else text
    assert without_suffix(text, part) == end


def interpreter(version):
    """A Python of this version that runs, or None."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    name = f"python{version}"
    check = f"import sys; sys.exit('%d.%d' % sys.version_info[:2] != '{version}')"
    for found in [shutil.which(name), *sorted(pyenv.glob(f"{version}.*/bin/{name}"))]:
        if found and subprocess.run([found, "-c", check], capture_output=True).returncode == 0:
            return found
    return None


OLDEST = {"numpy": "1.17", "protobuf": "3.6", "PyYAML": "5.1"}
NEWEST = {"numpy": "2", "protobuf": "6", "PyYAML": "6"}


def test_the_oldest_versions_are_those_of_the_package():
    text = (ROOT / "pyproject.toml").read_text()
    [listed] = re.findall(r"(?ms)^dependencies = \[(.*?)\]", text)
    assert dict(re.findall(r'"(\w+)>=([\d.]+)"', listed)) == OLDEST
    assert 'requires-python = ">=3.8"' in text and 'target-version = "py38"' in text


USE = """
import sys, numpy as np, google.protobuf, yaml
import caffe_metric as cm
from caffe_metric.layers import without_caffe
from caffe_metric.data import datum

print(sys.version_info[:2], np.__version__, google.protobuf.__version__, yaml.__version__)
x, y = np.random.RandomState(0).normal(size=(12, 5)), np.arange(12) // 2
for loss in (cm.TripletLoss(mining="ALL"), cm.RankHardLoss(neg_num=3)):
    value, gradient = loss(x, y, seed=1)
    assert value > 0 and np.isfinite(gradient).all() and np.abs(gradient).max() > 0
assert without_caffe("MarginInnerProductLayer") and without_caffe("NormLayer")
image, label = datum.decode(datum.encode(np.zeros((1, 2, 2), np.uint8), 3))[:2]
assert label == 3
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"), CAFFE_METRIC_PURE="1")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "packages", "says"),
    [("3.8", OLDEST, "(3, 8) 1.17."), ("3.13", NEWEST, "(3, 13) 2.")],
    ids=["oldest", "newest"],
)
def test_the_oldest_and_the_newest_versions_work(version, packages, says, wheel, tmp_path):
    """Installed without a compiler, and used, by the first and the last Python."""
    found = interpreter(version)
    if found is None:
        pytest.skip(f"no Python {version} here")
    environment = tmp_path / "venv"
    subprocess.run([found, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    pip = [python, "-m", "pip", "--disable-pip-version-check", "-q"]
    wanted = [f"{name}=={version}.*" for name, version in packages.items()]
    done = subprocess.run([*pip, "install", *wanted], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"the versions cannot be had: {done.stderr.strip().splitlines()[-1]}")
    assert wheel.name.endswith("-py3-none-any.whl")
    subprocess.run([*pip, "install", "--no-index", wheel], check=True)
    done = subprocess.run([python, "-I", "-c", USE], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(says)
    command = [environment / "bin" / "caffe-metric", "--version"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_what_is_no_dependency_is_asked_for_by_its_extra():
    """Every module that the package imports is standard, a dependency, Caffe's, or of an extra."""
    listed = dict(re.findall(r"(?m)^(\w+) = \[(.*)\]$", (ROOT / "pyproject.toml").read_text()))
    distributions = {
        "PIL": "pillow",
        "cv2": "opencv-python-headless<5",
        "faiss": "faiss-cpu",
        "skimage": "scikit-image",
        "sklearn": "scikit-learn",
        "threadpoolctl": "scikit-learn",  # which depends on it
    }
    for module, extra in EXTRAS.items():
        assert f'"{distributions.get(module, module)}"' in listed[extra]
    known = {"numpy", "google", "yaml", "caffe", "caffe_metric", "grpc_tools", *EXTRAS}
    for path in package_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            for name in {name.split(".")[0] for name in names}:
                beside = path.with_name(f"{name}.py").exists()
                assert name in known or beside or name in sys.stdlib_module_names, (path, name)
