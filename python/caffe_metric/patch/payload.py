"""What is brought into a tree: the proto fragment and the source files, with their places."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from caffe_metric.support import paths

# (folder in our tree, pattern, folder in a Caffe tree, what it is)
_PLACES = [
    ("include/caffe_metric", "**/*.hpp", "include/caffe_metric", "mathematics"),
    ("include/caffe_metric", "**/*.cuh", "include/caffe_metric", "mathematics"),
    ("include/caffe/layers", "*.hpp", "include/caffe/layers", "layer"),
    ("include/caffe/util", "*.hpp", "include/caffe/util", "layer"),
    ("src/caffe/layers", "*.cpp", "src/caffe/layers", "layer"),
    ("src/caffe/layers", "*.cu", "src/caffe/layers", "layer"),
    ("src/caffe/util", "*.cpp", "src/caffe/util", "layer"),
    ("src/caffe/util", "*.cu", "src/caffe/util", "layer"),
    ("tests/cpp", "*.hpp", "include/caffe/test", "test"),
    ("tests/cpp", "test_*.cpp", "src/caffe/test", "test"),
    ("tests/cpp", "test_*.cu", "src/caffe/test", "test"),
]


@dataclass(frozen=True)
class Source:
    """A file of ours: its path in a Caffe tree, its bytes, and what it is."""

    path: str
    data: bytes
    kind: str


@dataclass(frozen=True)
class Payload:
    fragment: str  # the text of proto/caffe_metric.proto
    sources: tuple[Source, ...]

    @property
    def digest(self) -> str:
        """A hash of all of it: two payloads of the same version may differ in a checkout."""
        digest = hashlib.sha256(self.fragment.encode())
        for source in self.sources:
            digest.update(source.path.encode() + b"\0" + source.data)
        return digest.hexdigest()


def load(top: Path | None = None) -> Payload:
    """Reads the payload below `top`, which defaults to the installed one."""
    top = top or paths.tree()
    sources = []
    for folder, pattern, place, kind in _PLACES:
        for path in sorted((top / folder).glob(pattern)):
            name = path.relative_to(top / folder).as_posix()
            sources.append(Source(f"{place}/{name}", path.read_bytes(), kind))
    fragment = (top / "proto" / "caffe_metric.proto").read_text(encoding="utf-8")
    return Payload(fragment, tuple(sources))
