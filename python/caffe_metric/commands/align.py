"""`caffe-metric align`: faces turned, scaled and cropped by five landmarks.

IMAGE_LIST has lines `FILE [LABEL] X1 Y1 ... X5 Y5`: left eye, right eye, nose, left and right
corner of the mouth, as seen in the image, in pixels; files are relative to the list. Without
--ec-mc-y the similarity is the least-squares one to the five-point template that most face
recognisers of today use (112 x 112). With --ec-mc-y D the eyes are put level, the middle of the
eyes is D pixels above the middle of the mouth, and stands at --ec-y from the top, centred.
OUT_DIR gets the images under their names, and list.txt with `FILE LABEL` lines.
"""

from __future__ import annotations

from pathlib import Path

from caffe_metric.data.alignment import eyes_similarity, read_list, template_similarity, warp
from caffe_metric.data.lists import labelled_lines
from caffe_metric.support.arguments import finite, size_argument
from caffe_metric.support.errors import UserError
from caffe_metric.support.files import replacing
from caffe_metric.support.progress import Progress
from caffe_metric.support.text import write_text


def add_arguments(parser):
    parser.add_argument("list", metavar="IMAGE_LIST")
    parser.add_argument("out", metavar="OUT_DIR")
    parser.add_argument("--size", type=size_argument, default=(112, 112), metavar="WxH")
    parser.add_argument("--ec-mc-y", type=finite, metavar="D", help="eyes' middle to mouth's")
    parser.add_argument("--ec-y", type=finite, metavar="Y", help="with --ec-mc-y; default: D")


def run(args):
    if args.ec_y is not None and args.ec_mc_y is None:
        raise UserError("--ec-y is for --ec-mc-y")
    if args.ec_mc_y is not None and args.ec_mc_y <= 0:
        raise UserError(f"--ec-mc-y is {args.ec_mc_y:g}, must be above 0")
    entries, out = read_list(args.list), Path(args.out)
    with Progress() as progress:
        for name, _, landmarks in progress.each(entries, f"aligning to {out}"):
            _align(Path(args.list).parent / name, out / name, landmarks, args)
    names, labels, _ = zip(*entries)
    with replacing(out / "list.txt") as path:
        labels = [0 if label is None else label for label in labels]
        write_text(path, labelled_lines(names, labels))
    print(f"{out}: {len(entries)} images")
    return 0


def _align(source, target, landmarks, args):
    from PIL import Image

    if Path(args.out).resolve() not in target.resolve().parents:
        raise UserError(f"{source}: a name within the list's folder is needed")
    try:
        if args.ec_mc_y is None:
            similarity = template_similarity(landmarks, args.size)
        else:
            ec_y = args.ec_mc_y if args.ec_y is None else args.ec_y
            similarity = eyes_similarity(landmarks, args.size, args.ec_mc_y, ec_y)
        with Image.open(source) as image:
            image.load()
            aligned = warp(
                image.convert("RGB") if image.mode == "P" else image, similarity, args.size
            )
        with replacing(target) as path:
            aligned.save(path)
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{source}: {error}") from error
