"""The embeddings and labels of a data set, by a net.

The net may be a training net, whose TEST Data layer says how images are scaled and cropped, or a
deploy net, whose caller says it. The data is an LMDB, or a list of images with `FILE LABEL` lines.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np

from caffe_metric.data.lists import check_labels, labelled_lines, read_labelled
from caffe_metric.data.lmdb_file import lmdb_names
from caffe_metric.nets import netfile
from caffe_metric.nets.filling import fill
from caffe_metric.nets.prune import making
from caffe_metric.support import child
from caffe_metric.support.errors import UserError
from caffe_metric.support.files import replacing
from caffe_metric.support.progress import Progress
from caffe_metric.support.text import write_text

TEST = 1
LABEL_BLOB = "caffe_metric_label"


def extraction_net(net, data, blob, batch=100, scale=1.0, mean=(), crop=0):
    """A NetParameter that reads `data` and computes `blob`; and the name of its label blob.

    net: a NetParameter, for training or deployment. scale, mean and crop are for a net that
    begins with an Input; a Data layer keeps its own. Raises UserError.
    """
    kept = making(net, blob)
    if not kept and blob not in net.input:
        tops = sorted({top for layer in net.layer for top in layer.top})
        raise UserError(f"the net has no blob '{blob}'; it has {', '.join(tops)}")
    out = type(net)(name=net.name)
    sources = [layer for layer in kept if not layer.bottom]
    if sources and sources[0].type in ("Data", "ImageData") and len(sources) == 1:
        reader = sources[0]
        kept.remove(reader)
    elif len(inputs := [top for layer in sources for top in layer.top] or list(net.input)) == 1:
        kept = [layer for layer in kept if layer.bottom]
        reader = type(net)().layer.add(name="data", top=inputs)
        reader.transform_param.scale = scale
        reader.transform_param.mean_value.extend(mean)
        reader.transform_param.crop_size = crop
    else:
        raise UserError("a net with one Data, ImageData or Input layer is needed")
    if len(reader.top) == 1:
        reader.top.append(LABEL_BLOB)
    _point_at(reader, data, batch)
    out.layer.extend([reader])
    out.layer.extend(kept)
    return out, reader.top[1]


def _point_at(reader, data, batch):
    """Makes a layer read `data`, in order."""
    old = reader.image_data_param
    size = old.new_height, old.new_width
    gray = reader.type == "ImageData" and not old.is_color
    for name in ("data_param", "image_data_param"):
        reader.ClearField(name)
    # Caffe mirrors at random in phase TEST, too.
    reader.transform_param.ClearField("mirror")
    if Path(data).is_dir():
        reader.type = "Data"
        reader.data_param.source = str(data)
        reader.data_param.batch_size = batch
        reader.data_param.backend = 1  # LMDB
        return
    param = reader.image_data_param
    reader.type, param.source, param.batch_size = "ImageData", str(data), batch
    param.new_height, param.new_width = size
    param.is_color = not gray


def extract(net_path, weights, data, blob, batch=100, gpu=None, **transform):
    """(embeddings float32 [N, D], labels int64 [N], names [N]) of a data set.

    transform: scale, mean and crop, as in `extraction_net`. Caffe runs in a child process. Raises
    UserError with Caffe's last words.
    """
    names, files = _names(data)
    if not Path(weights).exists():
        raise UserError(f"{weights}: no such file")
    # The child's stderr is caught; the progress line needs the one we have.
    with os.fdopen(os.dup(2), "w") as stream:
        progress = Progress(stream)
        outcome = child.run(
            lambda: _forward(
                net_path, weights, data, files, blob, batch, gpu, len(names), progress, transform
            )
        )
    if not outcome.ok:
        raise UserError(f"{net_path}: {outcome.last_words}")
    return (*outcome.value, names)


def _names(data):
    """The names of a data set's images; the lines of a list for Caffe, "" for an LMDB."""
    if Path(data).is_dir():
        names, files = lmdb_names(data), ""
        if not names:
            raise UserError(f"{data}: empty")
        return names, files
    names, labels = read_labelled(data)
    check_labels(labels, names)
    # Caffe reads no tabs, no byte order mark, and names relative to where it runs.
    folder = Path(data).resolve().parent
    return names, labelled_lines([folder / name for name in names], labels)


def _forward(net_path, weights, data, files, blob, batch, gpu, count, progress, transform):

    import caffe

    if gpu is None:
        caffe.set_mode_cpu()
    else:
        caffe.set_device(gpu)
        caffe.set_mode_gpu()
    with tempfile.TemporaryDirectory() as folder:
        source = data
        if files:
            source = Path(folder, "list.txt")
            write_text(source, files)
        message, label = extraction_net(
            netfile.read(str(net_path)), source, blob, min(batch, count), **transform
        )
        path = Path(folder, "net.prototxt")
        path.write_text(str(message))
        net = caffe.Net(str(path), caffe.TEST)
        fill(net, weights)
    embeddings, labels = [], []
    batches = range(-(-count // min(batch, count)))
    with progress:
        for _ in progress.each(batches, f"{blob} of {data}"):
            net.forward()
            rows = len(net.blobs[label].data)
            embeddings.append(net.blobs[blob].data.reshape(rows, -1).copy())
            labels.append(net.blobs[label].data.reshape(rows).copy())
    # The last batch goes on at the start again.
    labels = np.concatenate(labels)[:count].astype(np.int64)
    check_labels(labels)
    return np.concatenate(embeddings)[:count], labels


def save(path, embeddings, labels, names=None):
    """Writes the .npz file, whole or not at all."""
    if Path(path).suffix != ".npz":
        raise UserError(f"{path}: a name that ends in .npz is needed")
    arrays = {"embeddings": embeddings, "labels": labels}
    if names is not None:
        arrays["names"] = np.asarray(names)
    with replacing(path) as temporary:
        np.savez(temporary, **arrays)
