"""From the tree on disk to a wanted one: the files that differ, and the record of it."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from caffe_metric.patch import record as records
from caffe_metric.patch.base import Base
from caffe_metric.patch.journal import Remove, Write, commit
from caffe_metric.patch.plan import Plan
from caffe_metric.patch.record import Entry, Record, digest
from caffe_metric.patch.text import apply_edits, encode, hunks_of
from caffe_metric.support.errors import UserError


@dataclass
class ChangeSet:
    """wanted: for every path that we touch or touched, its bytes; None where there is no file."""

    root: Path
    record: Record | None
    wanted: dict[str, bytes | None] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)  # of files that come back
    entries: dict[str, Entry] = field(default_factory=dict)
    copies: dict[str, bytes] = field(default_factory=dict)  # files of the record

    @property
    def changes(self) -> dict[str, tuple[bytes | None, bytes | None]]:
        """The tree's paths whose bytes differ: those on disk, and those wanted."""
        found = {}
        for path, data in sorted(self.wanted.items()):
            there = read_bytes(self.root / path)
            if there != data:
                found[path] = (there, data)
        return found

    def carry_out(self, record: Record | None) -> bool:
        """Makes the changes, with `record` as the tree's new one. False where there is nothing."""
        kept = dict(self.copies)
        if record:
            kept[records.MANIFEST] = record.dumps()
        changes = self.changes
        for path in self._old_copies() - kept.keys():
            changes[path] = (b"", None)
        for path, data in kept.items():
            if read_bytes(self.root / path) != data:
                changes[path] = (None, data)
        if not changes:
            return False
        writes = [
            Write(real_path(self.root, path), data, self._mode(path))
            for path, (_, data) in changes.items()
            if data is not None
        ]
        removals = [Remove(p) for p, (_, data) in changes.items() if data is None]
        before = self.record.folders if self.record else []
        after = record.folders if record else []
        commit(self.root, writes, removals, [f for f in before if f not in after])
        return True

    def _old_copies(self) -> set[str]:
        if not self.record:
            return set()
        names = {records.MANIFEST}
        for path in self.record.files:
            names |= {records.before_path(path), records.after_path(path)}
        return {name for name in names if (self.root / name).exists()}

    def _mode(self, path: str) -> int:
        there = self.root / path
        return stat.S_IMODE(there.stat().st_mode) if there.exists() else self.modes.get(path, 0)


def restoring(base: Base) -> ChangeSet:
    """The change back to the tree without us."""
    change = ChangeSet(base.root, base.record)
    for path, entry in base.record.files.items() if base.record else ():
        text = base.read(path)
        change.wanted[path] = None if text is None else encode(text)
        change.modes[path] = entry.mode
    return change


def patching(base: Base, plan: Plan) -> ChangeSet:
    """The change to the tree that the plan describes."""
    change = restoring(base)
    for path, edits in plan.edits.items():
        before = base.read(path)
        after = apply_edits(before, edits)
        if after != before:
            _enter(change, base, path, "changed", encode(after))
            change.entries[path].hunks = hunks_of(before, edits)
            change.copies[records.after_path(path)] = encode(after)
    for path, data in plan.write.items():
        _enter(change, base, path, "added" if base.read(path) is None else "replaced", data)
    for path in plan.remove:
        _enter(change, base, path, "removed", None)
    return change


def folders_made(change: ChangeSet) -> list[str]:
    """Folders that hold files of ours only: they go when ours go."""
    found = set(change.record.folders) if change.record else set()
    for path, entry in change.entries.items():
        for folder in Path(path).parents:
            if entry.action == "added" and not (change.root / folder).exists():
                found.add(folder.as_posix())
    used = {p.as_posix() for path in change.entries for p in Path(path).parents}
    return sorted(found & used)


def real_path(root: Path, path: str) -> str:
    """The path with links inside the tree resolved: a link is kept, its target is written."""
    real = Path(os.path.realpath(root / path))
    if root not in (real, *real.parents):
        raise UserError(f"{path}: a link out of the tree, to {real}; nothing was changed")
    return real.relative_to(root).as_posix()


def read_bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _enter(change: ChangeSet, base: Base, path: str, action: str, data: bytes | None) -> None:
    before = base.read(path)
    entry = Entry(action, after=digest(data) if data is not None else "")
    if before is not None:
        entry.before = digest(encode(before))
        entry.mode = change.modes.get(path) or change._mode(path)
        change.copies[records.before_path(path)] = encode(before)
    change.entries[path] = entry
    change.wanted[path] = data
