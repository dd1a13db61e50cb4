"""What kind of tree it is, and its files."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from caffe_metric.patch import cpp, text
from caffe_metric.support.errors import UserError

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
    old = sorted(header.name for header in (path / "include/caffe").glob("*_layers.hpp"))
    if old and not any(layers.glob("*.hpp")):
        raise UserError(
            f"{root}: a tree from before December 2015 (it has {', '.join(old)}), when layers had "
            "no headers of their own in include/caffe/layers; a newer Caffe is needed"
        )
    if not layers.is_dir():
        raise UserError(f"{root}: not a Caffe source tree: it has no include/caffe/layers")
    return path


def kind_of(read) -> Kind:
    """Judges by the Layer class; `read(path)` gives a file's text or None."""
    code = cpp.blank(read("include/caffe/layer.hpp") or "")
    found = re.search(
        r"(?:template\s*<([^<>]*)>\s*)?\bclass\s+(?:\w+\s+)?Layer\s*(?:final\s*)?[:{]", code
    )
    if not found:
        return Kind(True)
    parameters = re.findall(r"\b(?:typename|class)\s+(\w+)", found.group(1) or "")
    if len(parameters) != 1:
        return Kind(False, f"its Layer is Layer<{', '.join(parameters)}>, not Layer<Dtype>")
    # declarations, not calls
    forwards = [f for f in re.findall(r"\bForward_cpu\s*\(([^()]*)\)", code) if "Blob" in f]
    blobs = rf"Blob\s*<\s*{parameters[0]}\s*>\s*\*"
    if forwards and not any(re.search(blobs, arguments) for arguments in forwards):
        return Kind(False, "its Layer's Forward_cpu takes other arguments than Blob<Dtype>s")
    return Kind(True)


def source_files(root: Path, ends: tuple[str, ...]) -> list[str]:
    """Relative paths of the tree's own files whose names end so; at the top, then in folders."""
    found = sorted(path.name for path in root.iterdir() if path.is_file())
    seen = set()
    for top in _SOURCE_FOLDERS:
        for folder, folders, names in os.walk(root / top, followlinks=True):
            if os.path.realpath(folder) in seen:  # a link in a circle
                folders.clear()
                continue
            seen.add(os.path.realpath(folder))
            folders[:] = sorted(f for f in folders if not _NOT_SOURCES.fullmatch(f))
            relative = Path(folder).relative_to(root).as_posix()
            found += [f"{relative}/{name}" for name in sorted(names)]
    return [path for path in found if path.endswith(ends)]


def windows_projects(root: Path) -> list[str]:
    """Relative paths of the projects of Visual Studio that come with a tree."""
    found = (root / "windows").glob("**/*.vcxproj")
    return sorted(path.relative_to(root).as_posix() for path in found)


def read_text(path: Path) -> str | None:
    """The file's text; None where there is no such file."""
    try:
        return text.decode(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
