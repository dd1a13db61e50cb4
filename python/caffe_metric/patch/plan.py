"""What a patched tree looks like: every file that differs from the tree without us."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field

from caffe_metric.patch import cpp, text, tree
from caffe_metric.patch import mends as mending
from caffe_metric.patch.base import Base
from caffe_metric.patch.clash import Clash
from caffe_metric.patch.merge_proto import merge_proto, parse_file
from caffe_metric.patch.payload import Payload
from caffe_metric.patch.schema_names import Schema
from caffe_metric.patch.sources import SUFFIXES, plan_sources
from caffe_metric.patch.text import Edit
from caffe_metric.support.errors import UserError


@dataclass
class Plan:
    kind: tree.Kind
    write: dict[str, bytes] = field(default_factory=dict)  # whole files of ours
    remove: list[str] = field(default_factory=list)  # files of the tree
    edits: dict[str, list[Edit]] = field(default_factory=dict)  # lines of the tree's files
    clashes: list[Clash] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    mended: dict[str, list[str]] = field(default_factory=dict)  # mend: "path:line"


def make_plan(base: Base, payload: Payload, without: tuple[str, ...] = ()) -> Plan:
    """The plan, its clashes solved where they can be; `without`: names of mends to leave out."""
    plan = Plan(tree.kind_of(base.read))
    schema = _schema(base)
    proto = merge_proto(payload.fragment, schema)
    if proto.edits:
        plan.edits[schema.main] = proto.edits
    plan.clashes += proto.clashes
    plan.warnings += proto.warnings
    if plan.kind.layers_fit:
        sources = plan_sources(base, list(payload.sources))
        plan.write, plan.remove = sources.write, sources.remove
        plan.edits.update(sources.edits)
        plan.clashes += sources.clashes
        plan.warnings += sources.warnings
        plan.warnings += _projects(base, plan)
    _warn_of_uses(base, plan, proto.replaced)
    _mend(base, plan, without)
    plan.clashes = sorted(set(plan.clashes))
    return plan


def _projects(base: Base, plan: Plan) -> list[str]:
    """What a project of Visual Studio that lists its files has to be told."""

    def listed(paths) -> str:
        chosen = [path for path in paths if path.startswith("src/caffe/") and "/test/" not in path]
        return ", ".join(path.replace("/", "\\") for path in sorted(chosen))

    add, take_out = listed(plan.write), listed(plan.remove)
    words = f"add {add}" + (f"; take out {take_out}" if take_out else "")
    return [
        f"{path} lists its files: {words}"
        for path in tree.windows_projects(base.root)
        if add and re.search(r"src[\\/]caffe[\\/]layers[\\/]", base.read(path) or "")
    ]


def _schema(base: Base) -> Schema:
    main = base.read(tree.PROTO)
    if main is None:
        raise UserError(f"{base.root / tree.PROTO}: no such file")
    files = {tree.PROTO: parse_file(tree.PROTO, main)}
    for path in base.files((".proto",)):
        if path.startswith("src/caffe/proto/") and path not in files:
            with contextlib.suppress(UserError):  # not ours to judge
                files[path] = parse_file(path, base.read(path))
    return Schema(tree.PROTO, files)


def _warn_of_uses(base: Base, plan: Plan, replaced: list[str]) -> None:
    """Code of the tree that reads messages which have other fields now."""
    if not replaced:
        return
    use = re.compile(rf"\b(?:has_|mutable_|clear_)?({'|'.join(replaced)})\b")
    for path in base.files(SUFFIXES):
        if path in plan.remove or path in plan.write or path.endswith(".pb.h"):
            continue
        content = base.read(path)
        found = use.search(cpp.blank(content)) if any(n in content for n in replaced) else None
        if found:
            line = text.line_of(content, found.start())
            plan.warnings.append(f"{path}:{line} uses {found.group(1)}, which is ours now")


def _mend(base: Base, plan: Plan, without: tuple[str, ...]) -> None:
    chosen = [mend for mend in mending.MENDS if mend.name not in without]
    ends = tuple({end.lstrip("/") for mend in chosen for end in mend.files})
    for path in base.files(ends) if chosen else ():
        if path in plan.remove or path in plan.write or base.is_link(path):
            continue
        content = base.read(path)
        for mend in chosen:
            edits = mend.edits_of(content, path, base.read) if mend.concerns(path) else []
            if edits:
                plan.edits.setdefault(path, []).extend(edits)
                places = [f"{path}:{text.line_of(content, e.start)}" for e in edits]
                plan.mended.setdefault(mend.name, []).extend(dict.fromkeys(places))
