"""The package as others install it: a wheel in a folder of its own, without protoc or compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from caffe_metric.support import paths
from package_wheel import build_wheel

ROOT = paths.tree()
if not (ROOT / "setup.py").is_file():
    pytest.skip("an installed package is not built again", allow_module_level=True)
if not shutil.which("protoc"):
    pytest.skip("building a package needs protoc", allow_module_level=True)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that a wheel was unpacked into, as pip does it."""
    pytest.importorskip("pybind11")
    folder = tmp_path_factory.mktemp("package")
    site = folder / "site"
    wheel = build_wheel(ROOT, folder, CC="false", CXX="false")  # its layers then use NumPy
    with zipfile.ZipFile(str(wheel)) as archive:
        archive.extractall(str(site))
    return site


def run(site, program, folder):
    """Runs a program text with the installed package, in another folder, without protoc."""
    environment = {**os.environ, "PYTHONPATH": str(site), "PATH": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=str(folder),
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


@pytest.mark.slow
def test_what_is_installed_at_the_top(installed):
    tops = {path.name for path in installed.iterdir() if path.suffix != ".dist-info"}
    older = {"datalayer.py", "norm2layer.py", "tripletlosslayer.py", "tripletselectlayer.py"}
    assert tops == {"caffe_metric", *older}


def test_an_installed_package_needs_no_protoc(installed, tmp_path):
    program = (
        "import caffe_metric; from caffe_metric.nets import schema, netschema;"
        "print(caffe_metric.__file__);"
        "print(schema.message('TripletLossParameter').field('margin').default);"
        "print(len(netschema.without_caffe().net.DESCRIPTOR.fields))"
    )
    where, default, fields = run(installed, program, tmp_path).split()
    assert Path(where).parent.parent == installed
    assert float(default) == 1
    assert int(fields) == 7


def test_the_demos_nets_are_installed(installed, tmp_path):
    program = (
        "from caffe_metric.demo import recipes; from caffe_metric.support import paths;"
        "print(len(recipes.examples(paths.tree()) + recipes.losses(paths.tree())))"
    )
    assert run(installed, program, tmp_path).strip() == "11"
