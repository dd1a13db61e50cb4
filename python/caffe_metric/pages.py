"""`caffe-metric pages [FOLDER]`: writes the reference pages of the layers, one a layer.

Parameters, types and defaults come from proto/, equations and shapes from the headers' comments;
only the prototxts to copy and the list of papers stand here. `--check` says whether the pages in
the folder are what would be written, and writes nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from caffe_metric.nets import schema
from caffe_metric.support import paths
from caffe_metric.support.errors import UserError
from caffe_metric.support.files import replacing
from caffe_metric.support.strings import without_prefix

FACENET = (
    "Schroff, Kalenichenko, Philbin: FaceNet: A Unified Embedding for Face Recognition and "
    "Clustering. CVPR 2015, arXiv:1503.03832."
)
RATIO = (
    "Wohlhart, Lepetit: Learning Descriptors for Object Recognition and 3D Pose Estimation. "
    "CVPR 2015, arXiv:1502.05908."
)
SOFT = (
    "Hermans, Beyer, Leibe: In Defense of the Triplet Loss for Person Re-Identification. "
    "arXiv:1703.07737 (2017)."
)
SWAP = (
    "Balntas, Riba, Ponsa, Mikolajczyk: Learning local feature descriptors with triplets and "
    "shallow convolutional neural networks. BMVC 2016."
)
VIDEOS = (
    "Wang, Gupta: Unsupervised Learning of Visual Representations using Videos. ICCV 2015, "
    "arXiv:1505.00687 (a ranking loss with hard negatives)."
)
SPHEREFACE = (
    "Liu, Wen, Yu, Li, Raj, Song: SphereFace: Deep Hypersphere Embedding for Face Recognition. "
    "CVPR 2017, arXiv:1704.08063."
)
ARCFACE = (
    "Deng, Guo, Xue, Zafeiriou: ArcFace: Additive Angular Margin Loss for Deep Face Recognition. "
    "CVPR 2019, arXiv:1801.07698."
)
COSFACE = (
    "Wang, Wang, Zhou, Ji, Gong, Zhou, Li, Liu: CosFace: Large Margin Cosine Loss for Deep Face "
    "Recognition. CVPR 2018, arXiv:1801.09414."
)


@dataclass(frozen=True)
class Page:
    """What a layer's page is made from.

    rules: headers of include/caffe_metric/ whose opening comments are shown. python: the class in
    caffe_metric.layers.
    """

    layer: str
    stem: str
    message: str
    field: str
    rules: tuple[str, ...]
    prototxt: str
    python: str
    papers: tuple[str, ...] = ()


PAGES = (
    Page(
        "Norm",
        "norm",
        "L2NormParameter",
        "l2_norm_param",
        ("norm",),
        """layer {
  name: "unit" type: "Norm" bottom: "features" top: "unit"
}
""",
        """layer {
  name: "unit" type: "Python" bottom: "features" top: "unit"
  python_param { module: "caffe_metric.layers" layer: "NormLayer" }
}
""",
    ),
    Page(
        "TripletLoss",
        "triplet_loss",
        "TripletLossParameter",
        "triplet_loss_param",
        ("triplet_rule", "distance", "triplet_mining"),
        """layer {
  name: "loss" type: "TripletLoss" bottom: "features" bottom: "label"
  top: "loss" top: "active" top: "d_ap" top: "d_an"
  triplet_loss_param { margin: 0.2 mining: SEMIHARD }
}
""",
        """layer {
  name: "loss" type: "Python" bottom: "features" bottom: "label"
  top: "loss" top: "active"
  loss_weight: 1 loss_weight: 0
  python_param {
    module: "caffe_metric.layers" layer: "TripletLossLayer"
    param_str: "{margin: 0.2, mining: SEMIHARD}"
  }
}
""",
        (FACENET, RATIO, SOFT, SWAP),
    ),
    Page(
        "RankHardLoss",
        "rank_hard_loss",
        "RankParameter",
        "rank_param",
        ("rank_hard",),
        """layer { name: "unit" type: "Norm" bottom: "features" top: "unit" }
layer {
  name: "loss" type: "RankHardLoss" bottom: "unit" bottom: "label"
  top: "loss" top: "active"
  rank_param { neg_num: 4 pair_size: 2 hard_ratio: 0.5 rand_ratio: 0.5 margin: 1 }
}
""",
        """layer {
  name: "unit" type: "Python" bottom: "features" top: "unit"
  python_param { module: "caffe_metric.layers" layer: "NormLayer" }
}
layer {
  name: "loss" type: "Python" bottom: "unit" bottom: "label" top: "loss"
  loss_weight: 1
  python_param {
    module: "caffe_metric.layers" layer: "RankHardLossLayer"
    param_str: "{neg_num: 4, pair_size: 2, margin: 1}"
  }
}
""",
        (VIDEOS,),
    ),
    Page(
        "MarginInnerProduct",
        "margin_inner_product",
        "MarginInnerProductParameter",
        "margin_inner_product_param",
        ("margin_rule",),
        """layer {
  name: "logits" type: "MarginInnerProduct" bottom: "features" bottom: "label"
  top: "logits" top: "lambda"
  margin_inner_product_param {
    num_output: 10 type: QUADRUPLE weight_filler { type: "xavier" }
    base: 1000 gamma: 0.12 power: 1 lambda_min: 5
  }
}
layer {
  name: "loss" type: "SoftmaxWithLoss" bottom: "logits" bottom: "label" top: "loss"
}
""",
        """layer {
  name: "logits" type: "Python" bottom: "features" bottom: "label" top: "logits"
  param { } param { lr_mult: 0 decay_mult: 0 }
  python_param {
    module: "caffe_metric.layers" layer: "MarginInnerProductLayer"
    param_str: "{num_output: 10, type: QUADRUPLE, base: 1000, gamma: 0.12, lambda_min: 5}"
  }
}
layer {
  name: "loss" type: "SoftmaxWithLoss" bottom: "logits" bottom: "label" top: "loss"
}
""",
        (SPHEREFACE, ARCFACE, COSFACE),
    ),
)


def add_arguments(parser) -> None:
    parser.add_argument("folder", metavar="FOLDER", nargs="?", default="docs/reference")
    parser.add_argument("--check", action="store_true", help="only say whether they are current")


def run(args) -> int:
    folder = Path(args.folder)
    stale = []
    for name, text in render_all().items():
        path = folder / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(str(path))
        if not args.check:
            with replacing(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
            print(f"wrote {path}")
    if args.check and stale:
        raise UserError(f"not current: {', '.join(stale)} (`caffe-metric pages` writes them)")
    return 0


def render_all() -> dict[str, str]:
    """{file name: text} of all pages and their index."""
    texts = {f"{page.stem}.md": render(page) for page in PAGES}
    lines = ["# Reference", "", "Written by `caffe-metric pages`; a test holds them current.", ""]
    for page in PAGES:
        brief = _header(page).brief.split(". ")[0].split(", $")[0].split(": $")[0].rstrip(".:")
        lines.append(f"- [{page.layer}]({page.stem}.md): {brief}.")
    texts["README.md"] = "\n".join(lines) + "\n"
    return texts


def render(page: Page) -> str:
    """A page as Markdown."""
    header = _header(page)
    message = schema.message(page.message)
    parts = [
        f"# {page.layer}",
        "<!-- Written by `caffe-metric pages` from proto/ and include/. Edit those. -->",
        header.brief,
        *header.body,
        f"## Parameters: `{page.field}`",
        _table(message),
        *_enums(message),
    ]
    if page.layer.endswith("Loss"):
        parts.append(
            "`loss_param { normalization: ... }` (FULL, VALID, BATCH_SIZE, NONE) replaces the "
            "normaliser Z; a Python layer takes `normalization` in param_str."
        )
    parts += ["## A prototxt", f"```\n{page.prototxt}```"]
    parts += ["As a Python layer:", f"```\n{page.python}```"]
    parts += ["## The rules"]
    for rule in page.rules:
        comment = _opening_comment(f"include/caffe_metric/{rule}.hpp")
        parts += [f"From `include/caffe_metric/{rule}.hpp`:", f"```\n{comment}\n```"]
    if page.papers:
        parts += ["## Papers", "\n".join(f"- {paper}" for paper in page.papers)]
    return "\n\n".join(parts) + "\n"


# --- Parameters -------------------------------------------------------------------------------


def _table(message) -> str:
    rows = ["| parameter | type | default | meaning |", "| --- | --- | --- | --- |"]
    for field in message.fields:
        default = "" if field.default is None else f"`{show(field.default)}`"
        comment = _escape(field.comment) or (f"see {field.type} below" if field.enum else "")
        rows.append(f"| `{field.name}` | {field.type} | {default} | {comment} |")
    return "\n".join(rows)


def _enums(message) -> list[str]:
    parts = []
    for enum in message.enums.values():
        about = f" {enum.comment}" if enum.comment else ""
        values = ", ".join(f"`{name}` ({number})" for name, number in enum.values.items())
        parts.append(f"{enum.name}: {values}.{about}")
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


def _header(page: Page) -> Header:
    path = f"include/caffe/layers/{page.stem}_layer.hpp"
    found = re.search(r"/\*\*(.*?)\*/\s*template", _read(path), re.DOTALL)
    if not found:
        raise UserError(f"{path}: its class has no comment")
    lines = [re.sub(r"^\s*\* ?", "", line) for line in found.group(1).strip().splitlines()]
    return parse_comment("\n".join(lines))


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
        inside = [lines[0], *[line for line in lines[1:] if line.startswith("      ")]]
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
        raise UserError(f"{path}: has no opening comment")
    return "\n".join(re.sub(r"^// ?", "", line) for line in blocks[0].rstrip().splitlines())


def _read(path: str) -> str:
    return (paths.tree() / path).read_text(encoding="utf-8")
