"""`caffe-metric align`: faces turned, scaled and cropped by five landmarks.

IMAGE_LIST has lines `FILE [LABEL] X1 Y1 ... X5 Y5`: left eye, right eye, nose, left and right
corner of the mouth, as seen in the image, in pixels; files are relative to the list. With --yunet
or --mtcnn lines are `FILE [LABEL]`, and a detector, whose files you have, finds the landmarks of
the largest face: OpenCV's YuNet, or MTCNN's three Caffe nets, which OpenCV runs.

The similarity is the least-squares one to the five points that most face recognisers of today use:
--size 112x112 is InsightFace's crop, 96x112 SphereFace's. With --ec-mc-y D the eyes are put level,
their middle is D pixels above the middle of the mouth, and stands at --ec-y from the top, centred.

OUT_DIR gets the images under their names (JPEG at quality 95, 4:4:4), and list.txt with
`FILE LABEL` lines, or `FILE` where the list has no labels: `convert` then takes OUT_DIR, a folder
a person. An image that cannot be read, or shows no face, is passed over, and stands with the
reason in left_out.txt; the exit status is 1 then.
"""

from __future__ import annotations

from pathlib import Path

from caffe_metric.data.alignment import (
    eyes_similarity,
    output_names,
    read_image,
    read_list,
    template_similarity,
    warp,
    write_image,
)
from caffe_metric.data.landmarks import YuNet
from caffe_metric.data.lists import labelled_lines
from caffe_metric.data.mtcnn import MTCNN
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
    detector = parser.add_mutually_exclusive_group()
    detector.add_argument("--yunet", metavar="F.onnx", help="finds the landmarks: OpenCV's YuNet")
    detector.add_argument(
        "--mtcnn",
        metavar="DIR",
        help="finds the landmarks: det1 to det3, .prototxt and .caffemodel",
    )


def run(args):
    if args.ec_y is not None and args.ec_mc_y is None:
        raise UserError("--ec-y is for --ec-mc-y")
    if args.ec_mc_y is not None and args.ec_mc_y <= 0:
        raise UserError(f"--ec-mc-y is {args.ec_mc_y:g}, must be above 0")
    detect = YuNet(args.yunet) if args.yunet else MTCNN(args.mtcnn) if args.mtcnn else None
    faces, out = read_list(args.list, landmarks=detect is None), Path(args.out)
    folder = Path(args.list).resolve().parent
    targets = output_names([face.name for face in faces], folder)
    done, failed = [], []
    with Progress() as progress:
        for face, target in progress.each(list(zip(faces, targets)), f"aligning to {out}"):
            try:
                _align(folder / face.name, out / target, face.landmarks, detect, args)
                done.append((target, face.label))
            except (OSError, ValueError) as error:
                failed.append(f"{face.name}\t{getattr(error, 'strerror', None) or error}\n")
    _write_lists(out, done, failed)
    print(f"{out}: {len(done)} images")
    if failed:
        first = failed[0].strip().replace("\t", ": ")
        raise UserError(
            f"{len(failed)} of {len(faces)} images left out ({first}): see {out}/left_out.txt"
        )
    return 0


def _align(source, target, landmarks, detect, args):
    image = read_image(source)
    if detect:
        landmarks = detect(image)
    if args.ec_mc_y is None:
        similarity = template_similarity(landmarks, args.size)
    else:
        ec_y = args.ec_mc_y if args.ec_y is None else args.ec_y
        similarity = eyes_similarity(landmarks, args.size, args.ec_mc_y, ec_y)
    write_image(target, warp(image, similarity, args.size))


def _write_lists(out, done, failed):
    names, labels = [name for name, _ in done], [label for _, label in done]
    lines = "".join(f"{name}\n" for name in names)
    with replacing(out / "list.txt") as path:
        write_text(path, lines if None in labels else labelled_lines(names, labels))
    left_out = out / "left_out.txt"
    if failed:
        with replacing(left_out) as path:
            write_text(path, "".join(failed))
    elif left_out.exists():
        left_out.unlink()
