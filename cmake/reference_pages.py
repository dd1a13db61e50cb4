"""Writes docs/reference, a page a layer of the suite; `--check` only says whether it is current.

    reference_pages.py [--check] [FOLDER]

Parameters, types, defaults and their meaning come from proto/, equations and shapes from the
headers' comments, all else from suite.py.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from caffe_metric import suite
from caffe_metric.nets import one_layer, schema
from caffe_metric.support.strings import without_prefix

ROOT = Path(__file__).resolve().parent.parent
WRITTEN = "Written by `cmake/reference_pages.py`"


class Incomplete(Exception):
    """Something a page needs is not written."""


def render_all() -> dict[str, str]:
    """{file name: text} of all pages and their index."""
    texts = {f"{row.stem}.md": render(row) for row in suite.NATIVE}
    lines = ["# Reference", "", f"{WRITTEN}; `./run lint` holds them current.", ""]
    for row in suite.NATIVE:
        brief = re.split(r"(?<!et al)\. |, \$|: \$", _header(row).brief)[0].rstrip(".:")
        lines.append(f"- [{row.type}]({row.stem}.md): {brief}.")
    texts["README.md"] = "\n".join(lines) + "\n"
    return texts


def render(row: suite.Layer) -> str:
    """A page as Markdown. Raises Incomplete."""
    header = _header(row)
    parts = [
        f"# {row.type}",
        f"<!-- {WRITTEN} from proto/, include/ and suite.py. Edit those. -->",
        header.brief,
        *header.body,
    ]
    for field, name in row.messages.items():
        message = schema.message(name)
        parts += [f"## Parameters: `{field}`", _table(message), *_enums(message)]
    if row.loss and row.normalization:
        parts.append(
            "`loss_param { normalization: ... }` (FULL, VALID, BATCH_SIZE, NONE) replaces the "
            "normaliser Z; a Python layer takes `normalization` in param_str."
        )
    parts += ["## A prototxt", f"```prototxt\n{prototxt(row)}```"]
    parts += ["As a Python layer:", f"```prototxt\n{prototxt(row, one_layer.PYTHON)}```"]
    parts += ["## The rules"]
    for rule in row.rules:
        comment = _opening_comment(f"include/caffe_metric/{rule}.hpp")
        parts += [f"From `include/caffe_metric/{rule}.hpp`:", f"```text\n{comment}\n```"]
    if row.papers:
        parts += ["## Papers", "\n".join(f"- {paper}" for paper in row.papers)]
    return "\n\n".join(parts) + "\n"


def prototxt(row: suite.Layer, engine: str = one_layer.CPP) -> str:
    """The layer in a net, to copy: behind a Norm or before a SoftmaxWithLoss where it needs one."""
    bottoms = list(next((roles for roles in row.bottoms if suite.LABEL in roles), row.bottoms[0]))
    before = after = extra = ""
    if row.unit_features:
        before = one_layer.layer("Norm", bottoms[:1], ["unit"], name="unit", engine=engine)
        bottoms[0] = "unit"
    if row.tops == ("logits",):
        after = (
            'layer {\n  name: "loss" type: "SoftmaxWithLoss" bottom: "logits" bottom: "label" '
            'top: "loss"\n}\n'
        )
    if row.counts and engine != one_layer.CPP:
        extra = "param { } param { lr_mult: 0 decay_mult: 0 }"
    tops = [*row.tops, *row.further]
    layer = one_layer.layer(
        row.type, bottoms, tops, row.example, name=tops[0], engine=engine, extra=extra
    )
    return before + layer + after


# --- Parameters -------------------------------------------------------------------------------


def _table(message) -> str:
    rows = ["| parameter | type | default | meaning |", "| --- | --- | --- | --- |"]
    for field in message.fields:
        default = "" if field.default is None else f"`{show(field.default)}`"
        comment = _escape(field.comment)
        if not comment:
            raise Incomplete(
                f"proto/caffe_metric.proto: {message.name}.{field.name} has no comment"
            )
        rows.append(f"| `{field.name}` | {field.type} | {default} | {comment} |")
    return "\n".join(rows)


def _enums(message) -> list[str]:
    parts = []
    for enum in message.enums.values():
        lines = [f"{enum.name}:{' ' + enum.comment if enum.comment else ''}", ""]
        for name, number in enum.values.items():
            meaning = enum.meanings.get(name)
            lines.append(f"- `{name}` ({number}){': ' + meaning if meaning else ''}")
        parts.append("\n".join(lines))
    return parts


def show(default) -> str:
    """A default as prototxt has it; floats with the fewest digits that give the same float32."""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, float):
        for digits in range(1, 10):
            text = f"{default:.{digits}g}"
            if schema.float32(float(text)) == default:
                return text
    return str(default)


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


# --- Comments ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Header:
    """The comment of a layer's class: its brief, and the parts after it as Markdown."""

    brief: str
    body: list[str]


def _header(row: suite.Layer) -> Header:
    """The comment of a layer's class; bottoms and tops are those of its base where it has none."""
    header, base = _comment(f"{row.stem}_layer")
    if not any(part.startswith("## ") for part in header.body):
        inherited = _comment(suite.file_stem(base))[0].body
        header.body.extend(inherited[[part.startswith("## ") for part in inherited].index(True) :])
    return header


def _comment(stem: str) -> tuple[Header, str]:
    """The comment of the class in a header, and the name of its base."""
    path = f"include/caffe/layers/{stem}.hpp"
    found = re.search(
        r"/\*\*(.*?)\*/\s*template <typename Dtype>\s*class \w+ : public (\w+)",
        _read(path),
        re.DOTALL,
    )
    if not found:
        raise Incomplete(f"{path}: its class has no comment")
    lines = [re.sub(r"^\s*\* ?", "", line) for line in found.group(1).strip().splitlines()]
    return parse_comment("\n".join(lines)), found.group(2)


def parse_comment(text: str) -> Header:
    """A Doxygen comment, with its @brief, @param bottom, @param top and numbered lists."""
    text = re.sub(
        r"@f\$\s*(.*?)\s*@f\$", lambda m: f"${' '.join(m.group(1).split())}$", text, flags=re.DOTALL
    )
    sections = re.split(r"^\s*@(brief|param)\s+", text.strip(), flags=re.MULTILINE)
    brief, body = "", []
    for kind, content in zip(sections[1::2], sections[2::2]):
        if kind == "brief":
            first, *rest = content.strip().split("\n\n")
            brief = " ".join(first.split())
            body += [" ".join(part.split()) for part in rest]
            continue
        name, _, about = content.strip().partition(" ")
        main, *rest = about.split("\n\n")
        title = {"bottom": "Bottoms", "top": "Tops"}.get(name, name)
        body += [f"## {title}", *_numbered(main)]
        body += [" ".join(part.split()) for part in rest]
    return Header(brief, body)


def _numbered(text: str) -> list[str]:
    """The text before a `-#` list, the list, and what follows it at the list's own indent."""
    lead, *items = re.split(r"^\s*-#\s+", text, flags=re.MULTILINE)
    parts = [re.sub("^(?:in|out)put Blob vector ", "", " ".join(lead.split()))]
    after = ""
    if items:
        # A line that is indented less than the last item's text belongs to the whole list.
        lines = items[-1].splitlines()
        inside = [lines[0], *[line for line in lines[1:] if line.startswith("     ")]]
        after = " ".join(" ".join(line for line in lines if line not in inside).split())
        items[-1] = "\n".join(inside)
        # A list by the number of bottoms names the number itself, too.
        texts = [
            without_prefix(" ".join(item.split()), f"{i}: ") for i, item in enumerate(items, 1)
        ]
        parts.append("\n".join(f"{i}. {text}" for i, text in enumerate(texts, 1)))
    return [part for part in [*parts, after] if part]


def _opening_comment(path: str) -> str:
    """The first block of // lines that stands before the namespace."""
    before = _read(path).split("namespace caffe_metric")[0]
    blocks = re.findall(r"(?:^//.*\n)+", before, re.MULTILINE)
    if not blocks:
        raise Incomplete(f"{path}: has no opening comment")
    return "\n".join(re.sub(r"^// ?", "", line) for line in blocks[0].rstrip().splitlines())


def _read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", metavar="FOLDER", nargs="?", default=ROOT / "docs" / "reference")
    parser.add_argument("--check", action="store_true", help="only say whether they are current")
    args = parser.parse_args(arguments)
    try:
        texts = render_all()
    except Incomplete as error:
        print(f"reference pages: {error}", file=sys.stderr)
        return 1
    stale = []
    for name, text in texts.items():
        path = Path(args.folder, name)
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(str(path))
        if not args.check:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path}")
    if args.check and stale:
        print(f"not current: {', '.join(stale)} (cmake/reference_pages.py writes them)")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
