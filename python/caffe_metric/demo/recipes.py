"""What the demo trains: the nets of examples 01 to 03, and the LeNet of 01 with each other loss."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

# name: folder of its solver.prototxt and net.prototxt, in a checkout or an installed package
EXAMPLES = {
    "triplet": Path("examples/01_triplet"),
    "rank_hard": Path("examples/02_rank_hard"),
    "margin": Path("examples/03_margin"),
}
# name: the database its net reads. Its loss stands in NAME.prototxt of LOSSES.
LOSSES = Path("examples/11_losses")
OF_LOSSES = {
    "softmax": "train_random.lmdb",
    "contrastive": "train_pk.lmdb",
    "multi_similarity": "train_pk.lmdb",
    "circle": "train_pk.lmdb",
    "sup_con": "train_pk.lmdb",
    "lifted_structure": "train_pk.lmdb",
    "proxy_anchor": "train_random.lmdb",
    "center": "train_random.lmdb",
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A training: its name, and the texts of its solver and net."""

    name: str
    solver: str
    net: str
    title: str = ""


BASELINE = "softmax"  # a classifier without any metric learning


def compared(root: Path) -> list[Recipe]:
    """What `./run demo` trains: the baseline, and the three of examples 01 to 03."""
    return [recipe for recipe in losses(root) if recipe.name == BASELINE] + examples(root)


def examples(root: Path) -> list[Recipe]:
    """The three of examples 01 to 03; root: the folder that `examples` is in."""
    return [
        Recipe(name, (root / folder / "solver.prototxt").read_text(), _net(root / folder))
        for name, folder in EXAMPLES.items()
    ]


def losses(root: Path) -> list[Recipe]:
    """The LeNet and solver of example 01 with each loss of example 11, the same steps."""
    solver = (root / EXAMPLES["triplet"] / "solver.prototxt").read_text()
    trunk = _net(root / EXAMPLES["triplet"]).partition('layer {\n  name: "norm"')[0]
    made = []
    for name, database in OF_LOSSES.items():
        head = (root / LOSSES / f"{name}.prototxt").read_text()
        net = trunk.replace("train_pk.lmdb", database).replace('name: "triplet"', f'name: "{name}"')
        net = re.sub(r"\A#.*\n", f"{head.splitlines()[0]}\n", net)
        made.append(Recipe(name, solver.replace("demo/triplet", f"demo/{name}"), net + head))
    return made


def _net(folder: Path) -> str:
    return (folder / "net.prototxt").read_text()
