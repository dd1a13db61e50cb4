"""Makes a Caffe tree that builds here: a copy, mended, with or without our layers.

    prepare_tree.py SOURCE TREE [--patch [--patch-arguments "..."]] [--tools FOLDER --unite N]

SOURCE is never written to.  A file of TREE is rewritten only when its content
changes, so that a later build compiles no more than it must; other files in
TREE, such as those of a build, are left alone.  `--patch` adds the layers, as
`caffe-metric patch` does, with the arguments that are given; `--tools` adds the
programs of FOLDER, a .cpp each, to the tools of Caffe, and `--unite` puts N of
Caffe's own .cu files into one, for a compiler that reads Caffe's headers anew
for each file and GPU.  What is left out of the copy, as a product or as data, is
named.
"""

from __future__ import annotations

import argparse
import filecmp
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "python"))

from caffe_metric.patch import text  # noqa: E402
from caffe_metric.patch.mends import MENDS  # noqa: E402

# What decides how a tree looks, besides its source.
PATCHER = ("python/caffe_metric/patch",)
LAYERS = ("proto", "include", "src/caffe", "tests/cpp")

IGNORED_FOLDERS = re.compile(r"\.git|\.pc|\.?build.*|\.?cmake_build|distribute|__pycache__")
IGNORED_FILES = re.compile(r".*\.(o|so|a|pyc|caffemodel|solverstate|mdb)|.*\.pb\.(h|cc)|.*_pb2\.py")
UNNAMED = {".git", ".pc", "__pycache__"}  # nobody misses them
LARGEST_FILE = 32 << 20  # bytes; data, not source


class TreeError(Exception):
    """Says why the tree cannot be made."""


def list_files(top: Path) -> tuple[list[str], list[str]]:
    """Relative names of the files of a source tree, and what is left out as product or data."""
    names, left_out = [], []
    for folder, folders, files in os.walk(top):
        inner = Path(folder).relative_to(top)
        kept = sorted(name for name in folders if not IGNORED_FOLDERS.fullmatch(name))
        left_out += [f"{inner / name}/" for name in sorted({*folders} - {*kept} - UNNAMED)]
        folders[:] = kept
        for name in sorted(files):
            path = Path(folder, name)
            ignored = IGNORED_FILES.fullmatch(name) or not path.is_file()
            if ignored or path.stat().st_size > LARGEST_FILE:
                left_out.append(str(inner / name))
            else:
                names.append(str(inner / name))
    return names, left_out


def signature(
    source: Path,
    names: list[str],
    patched: bool,
    arguments: list[str],
    tools: Path | None,
    unite: int,
) -> str:
    """A hash of everything that the tree is made from."""
    digest = hashlib.sha256(f"{source}\0{patched}\0{arguments}\0{unite}\0".encode())
    for name in names:
        status = (source / name).stat()
        digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    inputs = [Path(__file__).resolve()]
    for folder in PATCHER + (LAYERS if patched else ()):
        inputs += sorted(path for path in (ROOT / folder).rglob("*") if path.is_file())
    inputs += sorted(tools.glob("*.?pp")) if tools else []
    for path in inputs:
        if path.suffix != ".pyc":
            digest.update(f"{path}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def mend(tree: Path) -> None:
    """Mends breaks with today's libraries, as the patcher does; for a tree that is not patched."""

    def read(name: str) -> str | None:
        path = tree / name
        return text.decode(path.read_bytes()) if path.is_file() else None

    for path in sorted(path for path in tree.rglob("*") if path.is_file()):
        name = path.relative_to(tree).as_posix()
        chosen = [mend for mend in MENDS if mend.concerns(name)]
        if not chosen:
            continue
        content = text.decode(path.read_bytes())
        edits = [edit for mend in chosen for edit in mend.edits_of(content, name, read)]
        if edits:
            path.write_bytes(text.encode(text.apply_edits(content, edits)))


def add_layers(tree: Path, arguments: list[str]) -> None:
    """Hands over to `caffe-metric patch`; a clash is told with what `./run` takes against it."""
    environment = dict(os.environ, PYTHONPATH=str(ROOT / "python"))
    command = [sys.executable, "-m", "caffe_metric", "patch", str(tree), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    sys.stdout.write(done.stdout + done.stderr)
    if done.returncode != 0:
        words = (done.stderr.strip().splitlines() or ["the patcher failed"])[-1]
        raise TreeError(words.replace("--replace puts", "CAFFE_PATCH_ARGS=--replace puts"))


def unite_kernels(tree: Path, size: int) -> None:
    """Caffe's own .cu files, `size` in one. Those for cuDNN go: they are for a build with it."""
    folder = tree / "src" / "caffe"
    ours = {path.name for path in (ROOT / "src" / "caffe").rglob("*.cu")}
    own = []
    for path in sorted(folder.glob("*/*.cu")):
        if path.name.startswith("cudnn_"):
            path.unlink()
        elif path.name not in ours and path.parent.name != "test":
            own.append(path.rename(path.with_name(path.name + ".inc")))
    for number, begin in enumerate(range(0, len(own), size), 1):
        lines = [
            f'#include "../{path.relative_to(folder)}"\n' for path in own[begin : begin + size]
        ]
        (folder / "util" / f"united_{number}.cu").write_text("".join(lines))


def synchronise(staging: Path, tree: Path, old_names: list[str], names: list[str]) -> None:
    """Gives TREE the content of the staging folder, touching only what differs."""
    for name in names:
        target = tree / name
        if not target.is_file() or not filecmp.cmp(staging / name, target, shallow=False):
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(staging / name, target)
            os.utime(target)
    for name in set(old_names) - set(names):
        (tree / name).unlink(missing_ok=True)
    if old_names and set(old_names) != set(names):
        # Caffe's build globs for sources when it is configured.
        os.utime(tree / "CMakeLists.txt")


def prepare(
    source: Path,
    tree: Path,
    patched: bool,
    arguments: tuple[str, ...] = (),
    tools: Path | None = None,
    unite: int = 0,
) -> None:
    """Makes the tree, or brings it up to date; returns at once where it is.

    arguments: of `caffe-metric patch`.
    tools: a folder of programs that Caffe's build shall make, too.
    unite: how many of Caffe's .cu files become one; 0: they stay as they are.
    """
    for name in ("CMakeLists.txt", "src/caffe/proto/caffe.proto"):
        if not (source / name).is_file():
            raise TreeError(f"{source} is no Caffe tree: it has no {name}")
    names, left_out = list_files(source)
    key = signature(source, names, patched, list(arguments), tools, unite)
    record = tree / ".prepared.json"
    old = json.loads(record.read_text()) if record.is_file() else {"key": "", "files": []}
    if old["key"] == key:
        return

    staging = tree.with_name(tree.name + ".new")
    shutil.rmtree(staging, ignore_errors=True)
    for name in names:
        (staging / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / name, staging / name)
        (staging / name).chmod(0o755 if os.access(source / name, os.X_OK) else 0o644)
    if patched:
        add_layers(staging, list(arguments))
    else:
        mend(staging)
    for path in sorted(tools.glob("*.?pp")) if tools else []:
        shutil.copy(path, staging / "tools" / path.name)
    if unite:
        unite_kernels(staging, unite)

    names = list_files(staging)[0]
    # Until the work is done the record lists both, so that a retry removes the right files.
    record.parent.mkdir(parents=True, exist_ok=True)
    unfinished = sorted({*old["files"], *names})
    record.write_text(json.dumps({"key": "", "files": unfinished}))
    synchronise(staging, tree, old["files"], names)
    record.write_text(json.dumps({"key": key, "files": names}))
    shutil.rmtree(staging)
    print(f"{tree}: {len(names)} files")
    if left_out:
        shown, more = ", ".join(left_out[:6]), len(left_out) - 6
        print(f"note: not copied, as products or data: {shown}" + f" and {more} more" * (more > 0))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("tree", type=Path)
    parser.add_argument("--patch", action="store_true", help="add the layers")
    parser.add_argument("--patch-arguments", default="", help="of the patcher, as a shell has them")
    parser.add_argument("--tools", type=Path, help="a folder of further programs")
    parser.add_argument("--unite", type=int, default=0, help="so many .cu files in one")
    args = parser.parse_args()
    try:
        arguments = tuple(shlex.split(args.patch_arguments))
        source, tree = args.source.resolve(), args.tree.resolve()
        prepare(source, tree, args.patch, arguments, args.tools, args.unite)
    except (TreeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
