"""What kind of tree it is, and its files."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from caffe_metric.errors import UserError
from caffe_metric.patch import cpp, text

PROTO = "src/caffe/proto/caffe.proto"
# Where sources stand; builds and data are elsewhere, or are stepped over.
_SOURCE_FOLDERS = ("cmake", "examples", "include", "matlab", "python", "src", "tools")
_NOT_SOURCES = re.compile(r"\..*|build.*|.*_build|distribute|__pycache__|third_?party|3rdparty")


@dataclass(frozen=True)
class Kind:
    """What a tree can take. `layers_fit` is False where its Layer class is another one."""

    layers_fit: bool
    reason: str = ""


def resolve(root: str | Path) -> Path:
    """The tree's folder. Raises UserError where it is none, or one that is too old."""
    path = Path(root)
    if not path.is_dir():
        raise UserError(f"{root}: no such folder")
    path = path.resolve()
    for missing in (PROTO, "include/caffe"):
        if not (path / missing).exists():
            raise UserError(f"{root}: not a Caffe source tree: it has no {missing}")
    layers = path / "include/caffe/layers"
    if not layers.is_dir() or not any(layers.glob("*.hpp")):
        old = [p.name for p in sorted((path / "include/caffe").glob("*_layers.hpp"))]
        seen = f" (it has {', '.join(old)})" if old else ""
        raise UserError(
            f"{root}: a tree from before December 2015, when each layer got a header of its own in "
            f"include/caffe/layers{seen}; the layers need a newer one"
        )
    return path


def kind_of(read) -> Kind:
    """Judges by the Layer class; `read(path)` gives a file's text or None."""
    header = read("include/caffe/layer.hpp")
    if header is None:
        return Kind(False, "it has no include/caffe/layer.hpp")
    code = cpp.blank(header)
    found = re.search(r"template\s*<([^<>]*)>\s*class\s+(?:\w+\s+)?Layer\s*(?:final\s*)?[:{]", code)
    if not found:
        return Kind(False, "include/caffe/layer.hpp has no class template Layer")
    parameters = re.findall(r"\b(?:typename|class)\s+(\w+)", found.group(1))
    if len(parameters) != 1:
        return Kind(False, f"its Layer is Layer<{', '.join(parameters)}>, with another interface")
    dtype = parameters[0]
    forward = (
        rf"Forward_cpu\s*\(\s*const\s+(?:std::)?vector\s*<\s*Blob\s*<\s*{dtype}\s*>\s*\*\s*>\s*&"
    )
    if not re.search(forward, code):
        return Kind(False, "its Layer's Forward_cpu takes other arguments")
    return Kind(True)


def source_files(root: Path, suffixes: tuple[str, ...]) -> list[str]:
    """Relative paths of the tree's own files with these suffixes or names, in order."""
    found = [name for name in sorted(os.listdir(root)) if name.endswith(suffixes)]
    found = [name for name in found if (root / name).is_file()]
    for top in _SOURCE_FOLDERS:
        for folder, folders, names in os.walk(root / top):
            folders[:] = sorted(f for f in folders if not _NOT_SOURCES.fullmatch(f))
            relative = Path(folder).relative_to(root).as_posix()
            found += [f"{relative}/{name}" for name in sorted(names) if name.endswith(suffixes)]
    return found


def read_text(path: Path) -> str | None:
    """The file's text; None where there is no such file."""
    try:
        return text.decode(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
