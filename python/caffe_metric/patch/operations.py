"""apply, check and revert: what the command does, for programs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from caffe_metric import __version__
from caffe_metric.patch import journal, tree
from caffe_metric.patch import payload as payloads
from caffe_metric.patch import record as records
from caffe_metric.patch.base import Base
from caffe_metric.patch.change_set import ChangeSet, folders_made, patching, read_bytes, restoring
from caffe_metric.patch.clash import Clash
from caffe_metric.patch.diff import unified
from caffe_metric.patch.mends import MENDS
from caffe_metric.patch.payload import Payload
from caffe_metric.patch.plan import Plan, make_plan
from caffe_metric.patch.record import Entry, Record
from caffe_metric.support.errors import UserError


class ClashError(UserError):
    """The tree has what we would bring; `clashes` lists it. Nothing was changed."""

    def __init__(self, clashes: list[Clash]):
        self.clashes = clashes
        fatal = [clash for clash in clashes if clash.fatal]
        shown = "; ".join(str(clash) for clash in (fatal or clashes)[:3])
        more = len(fatal or clashes) - 3
        shown += f"; and {more} more" if more > 0 else ""
        advice = "--replace cannot solve it" if fatal else "--replace puts ours in their place"
        super().__init__(f"{shown} ({advice}; nothing was changed)")


@dataclass
class Report:
    """What `apply` did, or would do.

    changed: False where the tree was as wanted. diff: of all files, where asked for.
    """

    root: Path
    plan: Plan
    change: ChangeSet
    changed: bool
    diff: bytes = b""


@dataclass
class Status:
    """What `check` found.

    version: of caffe-metric that patched the tree, "" where none did. current: the same payload
    as ours. touched: "path: what happened" for each file that is not as the patch left it.
    """

    version: str
    current: bool = False
    touched: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        return bool(self.version) and self.current and not self.touched


def apply(
    root: str | Path,
    replace: bool | None = None,
    without: tuple[str, ...] | None = None,
    dry_run: bool = False,
    payload: Payload | None = None,
) -> Report:
    """Patches the tree, or brings an earlier patch up to date; only files that change are written.

    replace: ours take the place of layers, messages and fields of the same names.
    without: names of mends to leave out. None: as in the earlier patch of the tree.
    Raises ClashError or UserError; nothing is changed then.
    """
    root = tree.resolve(root)
    payload = payload or payloads.load()
    with journal.locked(root):
        base = _open(root)
        old = base.record.options if base.record else {}
        replace = old.get("replace", False) if replace is None else replace
        without = tuple(old.get("without", ()) if without is None else without)
        _check_names(without)
        _refuse_edited(base)
        plan = make_plan(base, payload, without)
        if plan.clashes and (not replace or any(clash.fatal for clash in plan.clashes)):
            raise ClashError(plan.clashes)
        change = patching(base, plan)
        if dry_run:
            diff = b"".join(unified(path, *pair) for path, pair in change.changes.items())
            return Report(root, plan, change, bool(change.changes), diff)
        options = {"replace": replace, "without": sorted(without)}
        record = Record(__version__, payload.digest, options, change.entries)
        record.folders = folders_made(change)
        record.notes = plan.warnings
        return Report(root, plan, change, change.carry_out(record))


def check(root: str | Path, payload: Payload | None = None) -> Status:
    """Says whether the tree is patched, and whether it is as the patch left it."""
    root = tree.resolve(root)
    payload = payload or payloads.load()
    with journal.locked(root):
        base = _open(root)
    if base.record is None:
        return Status("")
    status = Status(base.record.version, notes=base.record.notes)
    status.current = base.record.payload == payload.digest and base.record.version == __version__
    for path, entry in sorted(base.record.files.items()):
        there = read_bytes(root / path)
        if (records.digest(there) if there is not None else "") != entry.after:
            status.touched.append(f"{path}: {_what_happened(base, path, entry, there)}")
    return status


def revert(root: str | Path) -> bool:
    """Takes the patch out, byte for byte. False where there is none.

    Raises UserError where the owner has edited lines of ours since; other edits are kept.
    """
    root = tree.resolve(root)
    with journal.locked(root):
        base = _open(root)
        if base.record is None:
            return False
        _refuse_edited(base)
        return restoring(base).carry_out(None)


def _open(root: Path) -> Base:
    journal.recover(root)
    return Base(root, records.load(root))


def _refuse_edited(base: Base) -> None:
    if base.conflicts:
        places = [f"{path}{_lines(lines)}" for path, lines in sorted(base.conflicts.items())]
        raise UserError(
            f"edited since in lines of the patch: {'; '.join(places)} (nothing was changed; "
            "put these lines back, or save them elsewhere, first)"
        )


def _lines(lines: tuple[int, ...]) -> str:
    return ":" + ",".join(str(line) for line in lines) if lines else ""


def _what_happened(base: Base, path: str, entry: Entry, there: bytes | None) -> str:
    if there is None:
        return "removed since"
    if entry.action == "removed":
        return "there again"
    if path in base.conflicts:
        lines = base.conflicts[path]
        return f"edited in lines of the patch ({', '.join(map(str, lines))})" if lines else "edited"
    return "edited, in lines that are not of the patch"


def _check_names(without: tuple[str, ...]) -> None:
    known = [mend.name for mend in MENDS]
    unknown = sorted(set(without) - set(known))
    if unknown:
        raise UserError(f"no such mend: {', '.join(unknown)} (there are {', '.join(known)})")
