"""The parts of the package that pyproject.toml cannot say.

The extension `caffe_metric._core` is optional: without a C++ compiler the
package installs, and its layers use NumPy.  With CAFFE_METRIC_PURE=1 it is left
out, which makes a wheel for any Python and machine.  The files that go into a
Caffe tree are copied into the package, for `caffe-metric patch`, and what protoc
makes of proto/ is packaged, so that no installed package needs it.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "python"))
# What a Caffe tree is given; LICENSE because the files are copied on. And the demo's nets.
TREE = ("LICENSE", "proto/*", "include/**/*", "src/caffe/**/*", "tests/cpp/*")
TREE += ("examples/0[123]_*/*.prototxt", "examples/11_losses/*.prototxt")


def names(*patterns: str) -> list[str]:
    """The files that match, relative to the top, in order."""
    found = {path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()}
    return sorted(str(path.relative_to(ROOT)) for path in found)


class BuildPyWithTree(build_py):
    """Adds caffe_metric/_tree; an editable install finds the checkout itself."""

    def run(self):
        super().run()
        if not self._editable():
            for name, target in self._tree_files():
                target.parent.mkdir(parents=True, exist_ok=True)
                self.copy_file(str(ROOT / name), str(target))
            self._write_descriptors()

    def get_outputs(self, include_bytecode=True):
        own = [] if self._editable() else [str(target) for _, target in self._tree_files()]
        return (
            super().get_outputs(include_bytecode) + own + ([str(self._descriptors)] if own else [])
        )

    @property
    def _descriptors(self):
        return Path(self.build_lib, "caffe_metric", "nets", "descriptors.binpb")

    def _write_descriptors(self):
        from caffe_metric.nets import descriptors

        files = descriptors.sources(ROOT / "proto")
        made = descriptors.compiled(*(file.read_text(encoding="utf-8") for file in files))
        self._descriptors.write_bytes(made)

    def _editable(self) -> bool:
        return getattr(self, "editable_mode", False)  # setuptools has it from version 64 on

    def _tree_files(self):
        folder = Path(self.build_lib, "caffe_metric", "_tree")
        return [(name, folder / name) for name in names(*TREE)]


def extensions() -> list[Pybind11Extension]:
    """The bindings of the mathematics."""
    sources = names("src/python/*.cpp")
    if not sources or os.environ.get("CAFFE_METRIC_PURE", "0") != "0":
        return []
    return [
        Pybind11Extension(
            "caffe_metric._core",
            sources,
            include_dirs=["include", "src/python"],
            depends=names("include/caffe_metric/*", "src/python/*"),
            cxx_std=11,
            # Distributions build Python with -fwrapv, which keeps sums from being vectorised.
            extra_compile_args=["-O3", "-fno-wrapv"],
            optional=True,
        )
    ]


def has_locks() -> bool:
    """Whether this system has the locks of a pool of workers; not where /dev/shm is missing."""
    try:
        multiprocessing.Lock()
    except (ImportError, OSError):
        return False
    return True


if has_locks():
    ParallelCompile("CMAKE_BUILD_PARALLEL_LEVEL", default=0).install()
setup(
    license="BSD-2-Clause",
    package_dir={"": "python"},
    package_data={
        "caffe_metric.demo": ["*.html"],
        "caffe_metric.evaluation": ["*.html"],
        "caffe_metric.nets": ["*.proto"],
        "caffe_metric.zoo": ["*.proto"],
    },
    # For what protoc makes of proto/, on a machine that has none.
    setup_requires=[] if shutil.which("protoc") else ["grpcio-tools"],
    py_modules=[Path(name).stem for name in names("python/*.py")],
    ext_modules=extensions(),
    cmdclass={"build_ext": build_ext, "build_py": BuildPyWithTree},
)
