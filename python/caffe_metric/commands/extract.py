"""`caffe-metric extract`: the embeddings and labels of a data set, to an .npz file.

The net may be a training net, whose TEST Data layer says how images are scaled and cropped, or a
deploy net, where --scale, --mean and --crop say it. The data is an LMDB, or a list of images with
`FILE LABEL` lines. The file holds embeddings (float32 [N, D]), labels (int64 [N]) and names
(str [N], the keys of the LMDB).
"""

from __future__ import annotations

from caffe_metric.evaluation.extraction import extract, save
from caffe_metric.support.arguments import finite, natural, numbers, positive


def add_arguments(parser):
    parser.add_argument("--net", required=True, metavar="N.prototxt")
    parser.add_argument("--weights", required=True, metavar="W.caffemodel")
    parser.add_argument("--data", required=True, metavar="D", help="an LMDB, or a list of images")
    parser.add_argument("--blob", required=True, metavar="B", help="the embedding's blob")
    parser.add_argument("-o", dest="out", required=True, metavar="F.npz")
    parser.add_argument("--batch", type=positive, default=100)
    parser.add_argument("--gpu", type=natural, metavar="ID")
    deploy = parser.add_argument_group("for a net that begins with an Input layer")
    deploy.add_argument("--scale", type=finite, default=1.0, help="after the mean is taken off")
    deploy.add_argument(
        "--mean",
        type=numbers,
        default=[],
        metavar="B,G,R",
        help="one number, or one a channel",
    )
    deploy.add_argument("--crop", type=natural, default=0, metavar="SIZE", help="of the middle")


def run(args):
    embeddings, labels, names = extract(
        args.net,
        args.weights,
        args.data,
        args.blob,
        args.batch,
        args.gpu,
        scale=args.scale,
        mean=args.mean,
        crop=args.crop,
    )
    save(args.out, embeddings, labels, names)
    print(f"{args.out}: {len(labels)} embeddings of {embeddings.shape[1]} numbers")
    return 0
