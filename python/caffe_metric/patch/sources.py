"""Our source files into a tree: which are added, what of the tree stands in their way."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from caffe_metric.patch import cpp, extract
from caffe_metric.patch.base import Base
from caffe_metric.patch.clash import Clash
from caffe_metric.patch.payload import Source
from caffe_metric.patch.text import Edit, apply_edits, decode, line_end, line_of, line_start
from caffe_metric.support.strings import without_prefix

SUFFIXES = (".cpp", ".cc", ".cu", ".cuh", ".hpp", ".h")


@dataclass
class SourcePlan:
    """write: our files. remove: the tree's. edits: of the tree's files, which stay."""

    write: dict[str, bytes] = field(default_factory=dict)
    remove: list[str] = field(default_factory=list)
    edits: dict[str, list[Edit]] = field(default_factory=dict)
    clashes: list[Clash] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def plan_sources(base: Base, sources: list[Source]) -> SourcePlan:
    return _Planner(base, sources).plan()


class _Planner:
    def __init__(self, base: Base, sources: list[Source]):
        self.base = base
        self.ours = {source.path: source for source in sources}
        texts = [decode(s.data) for s in sources if s.kind != "mathematics"]
        self.types = {found.name for text in texts for found in cpp.registered(text)}
        names = {found.name for text in texts for found in cpp.classes(text)}
        self.classes = {name for name in names if re.search(r"Layer(Test)?$|Test$", name)}
        self.result = SourcePlan()
        self.extracted: set[str] = set()  # classes that are taken out of files which stay

    def plan(self) -> SourcePlan:
        for source in self.ours.values():
            self._place(source)
        self._leftovers()
        for path in self.base.files(SUFFIXES):
            if path.startswith(("src/caffe/", "include/caffe/")) and path not in self.ours:
                self._other_file(path)
        self._includers()
        self._users()
        return self.result

    def _place(self, source: Source) -> None:
        there = self.base.read(source.path)
        if self.base.occupied(source.path):
            self._clash(source.path, 1, "a folder or a broken link has this name", fatal=True)
        elif there is None:
            self.result.write[source.path] = source.data
        elif there != decode(source.data):
            self._clash(source.path, 1, "a file of this name is there already, and is not ours")
            self.result.write[source.path] = source.data
            for found in cpp.registered(there):
                if found.name not in self.types:
                    self._warn(f"{source.path}: the tree's layer {found.name} goes with this file")

    def _leftovers(self) -> None:
        """Parts of a layer that has a part of ours: its .cu, say, where ours has none."""
        for path, source in self.ours.items():
            if source.kind != "layer" or "/layers/" not in path:
                continue
            stem = PurePosixPath(path).stem
            for part in (f"include/caffe/layers/{stem}.hpp", f"src/caffe/layers/{stem}"):
                for name in [part] if part.endswith(".hpp") else [part + ".cpp", part + ".cu"]:
                    if name not in self.ours and self.base.read(name) is not None:
                        self._remove(name, 1, f"a part of another {stem}")

    def _other_file(self, path: str) -> None:
        if path in self.result.remove:
            return
        text = self.base.read(path)
        registered = cpp.registered(text)
        defined = [f for f in cpp.classes(text) if f.name.endswith(("Layer", "Test"))]
        layers = [found for found in registered if found.name in self.types]
        classes = [found for found in defined if found.name in self.classes]
        if not layers and not classes:
            return
        others = {found.name for found in registered} - self.types
        others |= {found.name for found in defined} - self.classes
        what = [f"registers the layer {f.name}" for f in layers]
        what += [f"defines the class {f.name}" for f in classes]
        lines = [found.line for found in [*layers, *classes]]
        if not others:
            self._remove(path, lines[0], "; ".join(what))
        elif classes:
            self._extract(path, text, zip(lines, what), {found.name for found in classes})
        else:
            for found, words in zip(layers, what):
                self._clash(path, found.line, words)
                self._unregister(path, text, found)

    def _extract(self, path: str, text: str, reasons, classes: set[str]) -> None:
        """Takes classes out of a file that has others, where that can be told for certain."""
        cuts, clear = set(), True
        for name in classes:
            found = extract.edits(text, name, self.types)
            clear &= found is not None
            cuts.update(found or ())
        for line, words in reasons:
            self._clash(path, line, f"{words}, among others", fatal=not clear)
        if clear:
            self.result.edits.setdefault(path, []).extend(sorted(cuts, key=lambda e: e.start))
            self.extracted |= classes
            names = ", ".join(sorted(classes))
            self._warn(f"{path}: {names} is taken out; the other classes stay")

    def _users(self) -> None:
        """Files that use a class which was taken out of a header, and would not find it."""
        if not self.extracted:
            return
        for path in self.base.files(SUFFIXES):
            if path in self.ours or path in self.result.remove:
                continue
            text = self.base.read(path)
            left = apply_edits(text, self.result.edits.get(path, []))
            for name in sorted(self.extracted):
                at = extract.uses(left, name)
                if at >= 0:
                    line = line_of(left, at)
                    self._clash(path, line, f"uses {name}, which would go", fatal=True)

    def _unregister(self, path: str, text: str, found: cpp.Found) -> None:
        """Takes the registration out; the whole line, where nothing else stands there."""
        start, end = line_start(text, found.start), line_end(text, found.end)
        if text[start : found.start].strip() or text[found.end : end].strip():
            start, end = found.start, found.end
        self.result.edits.setdefault(path, []).append(Edit(start, end, ""))

    def _includers(self) -> None:
        """Files that include a header which goes: tests of it go too, others cannot be helped."""
        gone = {without_prefix(path, "include/") for path in self.result.remove}
        gone = {path for path in gone if path.endswith((".hpp", ".h"))}
        if not gone:
            return
        for path in self.base.files(SUFFIXES):
            if path in self.ours or path in self.result.remove:
                continue
            for found in cpp.includes(self.base.read(path)):
                if found.name in gone and path.startswith("src/caffe/test/test_"):
                    self._remove(path, found.line, f"tests {found.name}, which goes")
                    break
                if found.name in gone:
                    self._clash(
                        path, found.line, f"includes {found.name}, which would go", fatal=True
                    )

    def _remove(self, path: str, line: int, what: str) -> None:
        self._clash(path, line, what, fatal=self.base.is_link(path))
        self.result.remove.append(path)
        self._warn(f"{path} is taken out: {what}")

    def _clash(self, path: str, line: int, what: str, fatal: bool = False) -> None:
        self.result.clashes.append(Clash(path, line, what, fatal))

    def _warn(self, words: str) -> None:
        self.result.warnings.append(words)
