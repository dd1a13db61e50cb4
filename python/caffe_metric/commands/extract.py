"""`caffe-metric extract`: the embeddings and labels of a data set, to an .npz file.

The net is a training net, whose data layer (Data, ImageData, IdentityData) says how images are
resized, scaled and cropped; or the folder that `deploy` wrote, which says it, too, and holds the
weights; or any net with an Input layer, for which --size, --mean, --scale and --crop say it. What
is given here wins. The data is an LMDB, a list with `FILE LABEL` lines, a folder with a folder for
each person, or an IDX file. The file holds embeddings (float32 [N, D]), labels (int64 [N]) and
names (str [N]: the files, or the keys of the LMDB).
"""

from __future__ import annotations

from pathlib import Path

from caffe_metric.evaluation.extraction import extract, save
from caffe_metric.support.arguments import finite, natural, numbers, positive, size_argument


def add_arguments(parser):
    parser.add_argument("--net", required=True, metavar="N", help="a prototxt, or deploy's folder")
    parser.add_argument("--weights", metavar="W.caffemodel", help="(deploy's folder: its own)")
    parser.add_argument("--data", required=True, metavar="D", help="LMDB, list, folder or IDX file")
    parser.add_argument("--blob", metavar="B", help="the embedding's blob; default: the one output")
    parser.add_argument("-o", dest="out", required=True, metavar="F.npz")
    parser.add_argument("--batch", type=positive, default=100)
    parser.add_argument("--gpu", type=natural, metavar="ID")
    images = parser.add_argument_group("images, where the net does not say it")
    images.add_argument("--size", type=size_argument, metavar="WxH", help="resized to")
    images.add_argument("--gray", action="store_true", help="one channel")
    images.add_argument("--crop", type=natural, metavar="SIZE", help="of the middle")
    images.add_argument(
        "--mean", type=numbers, metavar="B,G,R", help="one number, or one a channel"
    )
    images.add_argument("--scale", type=finite, help="after the mean is taken off")
    images.add_argument("--root", metavar="DIR", help="what the files of a list are relative to")


def run(args):
    embeddings, labels, names = extract(
        args.net,
        args.weights,
        args.data,
        args.blob,
        args.batch,
        args.gpu,
        folder=Path(args.out).parent if Path(args.out).parent.is_dir() else None,
        scale=args.scale,
        mean=args.mean,
        crop=args.crop,
        size=args.size,
        gray=args.gray,
        root=args.root,
    )
    save(args.out, embeddings, labels, names)
    print(f"{args.out}: {len(labels)} embeddings of {embeddings.shape[1]} numbers")
    return 0
