"""The site of `./run docs`: README, docs, examples, notebooks and the API, read without a network.

    build.py [OUT] [--tree TREE]

Ends with status 1 where a link or an anchor leads nowhere.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
ATTRIBUTES = re.compile(r'^( *`{3,}\w+)(?: +\w+="[^"]*")+ *$', re.MULTILINE)
FENCE = re.compile(r"^ *(`{3,}).*?^ *\1 *$", re.DOTALL | re.MULTILINE)

# A part of the navigation: what stands in it, in order. What no part names comes last.
NAV = {
    "Start": ["README.md", "docs/install.md", "docs/python.md"],
    "A net and a chip": [
        *("docs/faces.md", "docs/zoo.md", "docs/training.md", "docs/troubleshooting.md"),
        *("docs/evaluation.md", "docs/deploy.md", "docs/patch.md"),
    ],
    "Losses": ["docs/losses.md", "docs/reference/README.md", "docs/reference/*.md"],
    "Commands": ["docs/commands/README.md", "docs/commands/*.md"],
    "Examples": ["examples/README.md", "examples/*/README.md", "examples/*/*.md"],
    "Hardware": ["docs/speed.md", "docs/gpu.md", "docs/multi_gpu.md", "docs/mpi.md"],
    "API": ["api/README.md", "api/*.md"],
    "中文": ["docs/zh/README.md", "docs/zh/*.md"],
    "The project": ["CONTRIBUTING.md", "CHANGELOG.md", "*/**/*.md"],
}

# A page of the API: the modules in it.
API = {
    "The face": [
        "caffe_metric",
        "caffe_metric.losses.on_arrays",
        "caffe_metric.evaluation.report",
        "caffe_metric.deployment.embedder",
        "caffe_metric.gradients.check",
        "caffe_metric.nets.spec",
    ],
    "Losses on arrays": ["caffe_metric.losses.*"],
    "Python layers": ["caffe_metric.layers.*"],
    "Metrics": ["caffe_metric.evaluation.metrics.*"],
    "Data": ["caffe_metric.data.*"],
    "Training": ["caffe_metric.training.*"],
    "Nets and models": ["caffe_metric.suite", "caffe_metric.nets.*"],
    "Patching a tree": ["caffe_metric.patch", "caffe_metric.patch.record"],
}


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", metavar="OUT", nargs="?", default=ROOT / "build" / "docs")
    parser.add_argument("--tree", default=ROOT, help="the project (%(default)s)")
    args = parser.parse_args(arguments)
    tree, out = Path(args.tree).resolve(), Path(args.out).resolve()
    with tempfile.TemporaryDirectory() as scratch:
        pages = Path(scratch, "pages")
        lay_out(tree, pages)
        config = Path(scratch, "mkdocs.yml")
        config.write_text(settings(tree, pages, out), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", config],
            env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    if done.returncode:
        said = done.stderr.strip().splitlines()
        faults = [line for line in said if line.startswith(("WARNING", "ERROR"))] or said[-1:]
        print(*faults, f"error: {faults[0]} ({len(faults)} such)", sep="\n", file=sys.stderr)
        return 1
    hosts = foreign_hosts(out)
    if hosts:
        print(f"error: pages load from other hosts: {', '.join(hosts)}", file=sys.stderr)
        return 1
    print(f"{out / 'index.html'}: {len(list(out.rglob('*.html')))} pages")
    return 0


def lay_out(tree: Path, pages: Path) -> None:
    """All pages where the tree has them, so that their links hold, and the files they link to."""
    sources = [tree / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    sources += sorted(tree.glob("docs/**/*.md")) + sorted(tree.glob("examples/**/README.md"))
    sources.append(tree / "tests/hostcuda/README.md")
    for source in sources:
        _put(pages / source.relative_to(tree), linked(tree, source, pages))
    for source in sorted(tree.glob("examples/*/*.ipynb")):
        place = pages / source.relative_to(tree)
        shutil.copy(source, place)
        _put(place.with_suffix(".md"), notebook(source))
    _put(pages / "api/README.md", "# API\n\nFrom the docstrings of the Python package.\n")
    for number, (title, modules) in enumerate(API.items(), 1):
        parts = [f"::: {name}" for pattern in modules for name in module_names(tree, pattern)]
        _put(pages / f"api/{number}.md", "\n\n".join([f"# {title}", *parts]) + "\n")
    for name in ("iframe-worker.js", "extra.css"):
        _put(pages / "assets" / name, (HERE / name).read_text())


def linked(tree: Path, source: Path, pages: Path) -> str:
    """A page's text; a link to a folder leads to its README, and other files come along."""

    def follow(found):
        start, target, end = found.groups()
        if ":" in target:
            return found.group(0)
        file = (source.parent / target).resolve()
        if file.is_dir() and (file / "README.md").is_file():
            target, file = f"{target.rstrip('/')}/README.md", file / "README.md"
        if file.is_file() and file.suffix not in (".md", ".ipynb"):
            place = pages / file.relative_to(tree)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place)
        return start + target + end

    # What tests read behind a fence's language is no option of mkdocs'.
    text, kept = ATTRIBUTES.sub(r"\1", source.read_text(encoding="utf-8")), []

    def keep(found):
        kept.append(found.group(0))
        return f"\0{len(kept) - 1}\0"

    text = LINK.sub(follow, FENCE.sub(keep, text))
    return re.sub("\0(\\d+)\0", lambda found: kept[int(found.group(1))], text)


def notebook(source: Path) -> str:
    """A notebook's cells as a page."""
    parts = []
    for cell in json.loads(source.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"]).rstrip()
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    parts.insert(1, f"The notebook itself: [{source.name}]({source.name}).")
    return "\n\n".join(parts) + "\n"


def module_names(tree: Path, pattern: str) -> list[str]:
    """The modules that a pattern of API means."""
    folder = tree / "python" / Path(*pattern.split(".")[:-1])
    if not pattern.endswith(".*"):
        return [pattern]
    names = sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))
    return [pattern[:-1] + name for name in names]


def settings(tree: Path, pages: Path, out: Path) -> str:
    """mkdocs.yml with what only this run knows."""
    text = (HERE / "mkdocs.yml").read_text(encoding="utf-8")
    text = text.replace("[hooks.py]", f"[{HERE / 'hooks.py'}]")
    text = text.replace(
        "        python:\n", f"        python:\n          paths: [{tree}/python]\n", 1
    )
    left = sorted(str(path.relative_to(pages)) for path in pages.rglob("*.md"))
    nav = []
    for title, patterns in NAV.items():
        found = []
        for pattern in patterns:
            there = {str(path.relative_to(pages)) for path in pages.glob(pattern)}
            matching = [name for name in left if name in there]
            found += matching
            left = [name for name in left if name not in matching]
        if found:
            nav.append({title: found})
    more = {"docs_dir": str(pages), "site_dir": str(out), "nav": nav}
    return text + yaml.safe_dump(more, allow_unicode=True)


def foreign_hosts(out: Path) -> list[str]:
    """Hosts that a page would ask for scripts, styles, fonts or pictures."""
    loads = re.compile(
        r"""<(?:script|img|iframe)\b[^>]*?\bsrc=["']?(?:https?:)?//([^/"'>\s]+)"""
        r"""|<link\b(?=[^>]*rel=["']?(?:stylesheet|preload|preconnect|icon))[^>]*?\bhref=["']?"""
        r"""(?:https?:)?//([^/"'>\s]+)"""
    )
    return sorted(
        {
            found.group(1) or found.group(2)
            for page in out.rglob("*.html")
            for found in loads.finditer(page.read_text(encoding="utf-8"))
        }
    )


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
