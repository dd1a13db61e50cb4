"""Runs the code blocks of README, docs/ and examples/, holds what they print against them.

    documents.py [--write] [--list] [PAGE...]

A block is told by the word behind its fence:

    sh, console   a command, run in a folder where `examples` is the project's
    python        run, a page's blocks one after another
    prototxt      read as a net, a solver or a part of one
    json          read
    output        what the block above it prints; `...` stands for any lines, numbers may differ by
                  a twentieth; times, speeds, sizes and numbers of files at will. --write puts what
                  is printed in its place
    text          anything else that is no code

`sh needs="REASON"` and `python needs="REASON"` are not run: their commands' arguments, files and
syntax are checked. `sh status="1"` ends with that status. Pages of docs/commands are one walk, in
the order of its README: each goes on with what those before it have made.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from caffe_metric.nets import netfile
from caffe_metric.support.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r'^( *)(`{3,})(\w*)((?: +\w+="[^"]*")*) *$')
TOLERANCE = 0.05
NOT_RUN = ("output", "text")
CODE = ("sh", "python", "prototxt", "json")
PATIENCE = 300  # seconds


class Fault(Exception):
    """A block that is not as its page says."""


@dataclasses.dataclass
class Block:
    """A fenced block: line is that of its fence, counted from 1."""

    page: Path
    line: int
    language: str
    attributes: dict
    text: str

    def fault(self, message):
        return Fault(f"{self.page.relative_to(ROOT)}:{self.line}: {message}")


def pages() -> list[Path]:
    """README, CONTRIBUTING, all of docs/, and the READMEs of the examples."""
    found = [
        *sorted((ROOT / "docs").rglob("*.md")),
        *sorted((ROOT / "examples").rglob("README.md")),
    ]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *found]


def walk() -> list[Path]:
    """The pages of docs/commands in the order of its README."""
    index = ROOT / "docs" / "commands" / "README.md"
    names = re.findall(r"\]\((\w+\.md)\)", index.read_text(encoding="utf-8"))
    return [index, *(index.with_name(name) for name in dict.fromkeys(names))]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page. Raises Fault for a block without a word, or without fences."""
    found, opened, lines = [], None, page.read_text(encoding="utf-8").splitlines()
    listed = False
    for number, line in enumerate(lines, 1):
        fence = FENCE.match(line)
        if opened is None and fence:
            attributes = dict(re.findall(r'(\w+)="([^"]*)"', fence.group(4)))
            opened = Block(page, number, fence.group(3), attributes, "")
            indent, mark, body = len(fence.group(1)), fence.group(2), []
        elif opened is not None and line.strip() == mark:
            opened.text = "".join(f"{one[indent:]}\n" for one in body)
            found.append(opened)
            opened = None
        elif opened is not None:
            body.append(line)
        elif line.strip():
            listed = bool(re.match(r" *([-*]|\d+\.) ", line)) or (listed and line.startswith(" "))
            if line.startswith("    ") and not listed and not lines[number - 2].strip():
                raise Block(page, number, "", {}, "").fault("a block without fences")
    for block in found:
        if block.language not in (*CODE, *NOT_RUN):
            raise block.fault(f"a block of {block.language or 'no'} language")
    return found


def is_run(block: Block) -> bool:
    return block.language in ("sh", "python") and "needs" not in block.attributes


# --- What is not run ----------------------------------------------------------------------------


def check(block: Block) -> None:
    """Reads a block without running it. Raises Fault."""
    try:
        if block.language == "prototxt":
            read_prototxt(block.text)
        elif block.language == "json":
            json.loads(block.text)
        elif block.language == "python":
            compile(block.text, str(block.page), "exec")
        elif block.language == "sh":
            for words in command_lines(block.text):
                check_command(words)
    except (UserError, ValueError, SyntaxError, LookupError) as error:
        raise block.fault(error) from error


def read_prototxt(text: str) -> None:
    """A net, or a solver, whose fields Caffe with the layers knows. Raises UserError."""
    if re.search(r"^\s*(base_lr|max_iter|snapshot)\w*:", text, re.MULTILINE):
        from caffe.proto import caffe_pb2

        netfile.parse("block", caffe_pb2.SolverParameter(), text)
    else:
        netfile.read("block", text)


def command_lines(text: str) -> list[list[str]]:
    """The words of each simple command; here-documents are left out."""
    text = re.sub(r"<<'?(\w+)'?.*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    lines = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(re.sub(r"\d?[<>]+&?\s*\S+", " ", line), comments=True)
        while words and (re.match(r"\w+=", words[0]) or words[0] in ("sudo", "time", "nohup")):
            words.pop(0)
        if words:
            lines.append(words)
    return lines


def check_command(words: list[str]) -> None:
    """Arguments of our commands, targets of ./run, and files of the project. Raises ValueError."""
    if words[0].endswith("caffe-metric"):
        command, arguments = words[1], [word for word in words[2:] if word not in "&|"]
        module = importlib.import_module(f"caffe_metric.commands.{command}")
        parser = argparse.ArgumentParser(prog=command)
        module.add_arguments(parser)
        said = io.StringIO()
        try:
            with redirect_stderr(said), redirect_stdout(said):
                parser.parse_args(arguments)
        except SystemExit as ended:
            if ended.code:
                raise ValueError(said.getvalue().splitlines()[-1]) from ended
    if words[0] == "./run":
        known = re.findall(r"^  (\w[\w-]*)", (ROOT / "run").read_text(encoding="utf-8"), re.M)
        for word in words[1:]:
            if word not in (*known, "losses"):
                raise ValueError(f"./run has no target {word}")
    if "-m" in words[:3] and words[0].endswith("python"):
        name = words[words.index("-m") + 1]
        if name.startswith(("caffe_metric", "benchmarks")):
            folders = (ROOT / "python", ROOT)
            place = Path(*name.split("."))
            if not any((folder / f).exists() for folder in folders for f in (place, f"{place}.py")):
                raise ValueError(f"no module {name}")
    for word in words:
        place = re.match(r"(examples|tests|benchmarks|cmake)/[\w/.-]+$", word)
        if place and not (ROOT / word).exists():
            raise ValueError(f"{word}: no such file")


# --- What is run --------------------------------------------------------------------------------


class Sandbox:
    """A folder in which the blocks of pages are run.

    `examples`, `cmake` and .venv are the project's; `caffe` is Caffe's source where it is at hand.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.names: dict = {}
        (folder / "examples").symlink_to(ROOT / "examples")
        (folder / "cmake").symlink_to(ROOT / "cmake")
        (folder / ".venv").symlink_to(sys.prefix)
        tree = ROOT / "build" / "source"
        if tree.is_dir():
            shutil.copytree(tree, folder / "caffe", ignore=shutil.ignore_patterns("debian", ".pc"))
        program = Path(sys.executable).parent
        self.environment = {
            **os.environ,
            "PATH": f"{program}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "python"),
            "HOME": str(folder),
            "COLUMNS": "100",
            "LC_ALL": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "GLOG_minloglevel": "2",
        }

    def run(self, block: Block) -> str:
        """What a block of sh or python prints. Raises Fault."""
        wanted = int(block.attributes.get("status", 0))
        if block.language == "python":
            argv = [sys.executable, "-c", self._python(block)]
        else:
            argv = ["sh", "-ec", block.text]
        done = subprocess.run(
            argv,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if done.returncode != wanted:
            raise block.fault(f"exit status {done.returncode}: {done.stdout[-800:]}")
        return done.stdout.replace(str(self.folder), "~")

    def _python(self, block: Block) -> str:
        """A page's blocks are one program, what those before have printed left out."""
        before = self.names.setdefault(block.page, [])
        quiet = "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()):\n"
        text = "".join(quiet + _indented(one) + "\n" for one in before) + block.text
        before.append(block.text)
        return text


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())


def run_pages(chosen: list[Path], folder: Path, write: bool = False) -> list[str]:
    """Runs the pages' blocks in one folder; returns what is wrong with them."""
    sandbox, faults = Sandbox(folder), []
    for page in chosen:
        printed, changes = None, []
        for block in blocks(page):
            try:
                if is_run(block):
                    check(block)
                    printed = sandbox.run(block)
                elif block.language == "output" and printed is not None:
                    if write:
                        changes.append((block, printed))
                    elif not alike(block.text, printed):
                        raise block.fault(f"it prints now:\n{printed}")
                    printed = None
                elif block.language in CODE:
                    check(block)
                    printed = None
            except Fault as fault:
                faults.append(str(fault))
                printed = None
        if changes:
            _write(page, changes)
    return faults


def _write(page: Path, changes: list) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    for block, printed in reversed(changes):
        if "..." in block.text.splitlines():
            continue  # shortened by hand
        last = block.line + len(block.text.splitlines())
        lines[block.line : last] = printed.rstrip("\n").splitlines()
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")


UNITS = r"(?:s|ms|min|h|images/s|MB|MiB|GB|added|changed)\b"
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def alike(expected: str, printed: str) -> bool:
    """Whether a page's block tells what is printed."""
    wanted, got = (
        [
            re.sub(rf"{NUMBER.pattern} ?(?={UNITS})", "~ ", line.rstrip())
            for line in text.rstrip().splitlines()
        ]
        for text in (expected, printed)
    )
    if "..." not in wanted:
        return len(wanted) == len(got) and all(map(_alike, wanted, got))
    cut = wanted.index("...")
    rest = "\n".join(wanted[cut + 1 :])
    if len(got) < cut or not all(map(_alike, wanted[:cut], got)):
        return False
    return any(alike(rest, "\n".join(got[start:])) for start in range(cut, len(got) + 1))


def _alike(wanted: str, got: str) -> bool:
    numbers = [list(map(float, NUMBER.findall(line))) for line in (wanted, got)]
    words = [" ".join(NUMBER.sub("#", line).split()) for line in (wanted, got)]
    return words[0] == words[1] and all(
        abs(a - b) <= TOLERANCE * max(1, abs(a), abs(b)) for a, b in zip(*numbers)
    )


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", metavar="PAGE", nargs="*", type=Path, help="(all)")
    parser.add_argument("--write", action="store_true", help="write what is printed into the pages")
    parser.add_argument("--list", action="store_true", help="name what is not run, and why")
    args = parser.parse_args(arguments)
    chosen = [page.resolve() for page in args.pages] or pages()
    if args.list:
        for reason, places in not_run(chosen).items():
            print(f"{reason}: {', '.join(places)}")
        return 0
    together = walk()
    groups = [[page for page in together if page in chosen or set(together) & set(chosen)]]
    groups += [[page] for page in chosen if page not in together]
    faults = []
    for group in filter(None, groups):
        with tempfile.TemporaryDirectory() as folder:
            faults += run_pages(group, Path(folder), args.write)
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


def not_run(chosen: list[Path]) -> dict[str, list[str]]:
    """{reason: places of blocks that are not run for it}."""
    found: dict = {}
    for page in chosen:
        for block in blocks(page):
            if "needs" in block.attributes:
                place = f"{page.relative_to(ROOT)}:{block.line}"
                found.setdefault(block.attributes["needs"], []).append(place)
    return found


if __name__ == "__main__":
    sys.exit(main())
