"""The tree as it would be without us: what a patch starts from, and what a revert restores."""

from __future__ import annotations

from dataclasses import dataclass, field
from os.path import lexists, realpath
from pathlib import Path

from caffe_metric.patch import record as records
from caffe_metric.patch import text, tree
from caffe_metric.patch.record import Record
from caffe_metric.patch.unmerge import unmerge


@dataclass
class Base:
    """Reads files of the tree without our changes.

    conflicts: for each path that its owner edited in our lines, those line numbers; () stands for
    the whole file.
    """

    root: Path
    record: Record | None
    conflicts: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _cache: dict[str, str | None] = field(default_factory=dict)

    def __post_init__(self):
        for path in self._ours():
            self._cache[path] = self._restored(path)

    def read(self, path: str) -> str | None:
        """The file's text, or None where there is none."""
        if path not in self._cache:
            self._cache[path] = tree.read_text(self.root / path)
        return self._cache[path]

    def files(self, suffixes: tuple[str, ...]) -> list[str]:
        """Paths of the tree's sources without ours."""
        found = set(tree.source_files(self.root, suffixes))
        found |= {path for path in self._ours() if path.endswith(suffixes)}
        return sorted(path for path in found if self.read(path) is not None)

    def occupied(self, path: str) -> bool:
        """Whether there is something that is no file: a folder, or a link that leads nowhere."""
        return self.read(path) is None and path not in self._ours() and lexists(self.root / path)

    def is_link(self, path: str) -> bool:
        """Whether the path leads to a file elsewhere."""
        return Path(realpath(self.root / path)) != self.root / path

    def _ours(self):
        return self.record.files if self.record else ()

    def _restored(self, path: str) -> str | None:
        entry = self.record.files[path]
        current = tree.read_text(self.root / path)
        untouched = records.digest(text.encode(current)) if current is not None else ""
        if entry.action == "added":
            if current is not None and untouched != entry.after:
                self.conflicts[path] = ()
            return None
        before = tree.read_text(self.root / records.before_path(path))
        if before is None or records.digest(text.encode(before)) != entry.before:
            self.conflicts[path] = ()
            return current
        if untouched in (entry.after, entry.before):
            return before
        if entry.action == "changed" and current is not None:
            after = tree.read_text(self.root / records.after_path(path))
            restored = unmerge(before, after or "", current, entry.hunks)
            if restored.conflicts or after is None:
                self.conflicts[path] = restored.conflicts
            return restored.text
        self.conflicts[path] = ()
        return before
