"""Writes images of a labelled data set as files, and a list with lines `person@file label`.

    .venv/bin/python examples/07_person_list/make_list.py SOURCE OUT_DIR [--limit N]

SOURCE is a folder with one folder a class, a list, or an IDX file (MNIST's format).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from caffe_metric.data.conversion import keep_classes
from caffe_metric.data.sources import open_source
from caffe_metric.support.errors import UserError
from PIL import Image


def write_list(source, folder: Path) -> int:
    """Returns the number of images."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for row, label in enumerate(source.labels.tolist()):
        person = str(source.class_names.get(label, f"person{label}")).replace(" ", "_")
        name = f"{person}@{row:06d}.png"
        pixels = source.load(row)[::-1].transpose(1, 2, 0)
        Image.fromarray(np.squeeze(pixels)).save(folder / name)
        lines.append(f"{name} {label}\n")
    (folder / "train.txt").write_text("".join(lines), encoding="utf-8")
    return len(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("folder", type=Path, metavar="OUT_DIR")
    parser.add_argument("--limit", type=int, default=100, help="images of each class")
    args = parser.parse_args()
    try:
        count = write_list(keep_classes(open_source(args.source), limit=args.limit), args.folder)
    except (UserError, OSError) as error:
        print(f"make_list: {error}", file=sys.stderr)
        return 1
    print(f"{args.folder / 'train.txt'}: {count} images")
    return 0


if __name__ == "__main__":
    sys.exit(main())
