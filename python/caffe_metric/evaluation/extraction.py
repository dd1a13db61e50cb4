"""The embeddings and labels of a data set, by a net.

The net may be a training net, whose data layer says how images are scaled and cropped, or a deploy
net, whose folder says it, or the caller.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caffe_metric.data.lists import check_labels, labelled_lines, read_labelled
from caffe_metric.data.lmdb_file import lmdb_names
from caffe_metric.evaluation import reading
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


def extract(net_path, weights, data, blob, batch=100, gpu=None, folder=None, **given):
    """(embeddings float32 [N, D], labels int64 [N], names [N]) of a data set.

    net_path: a prototxt, or a deployed net's folder. data: an LMDB, a list, a folder with one
    folder a person, or an IDX file. given: scale, mean, crop, size (width, height), gray, root,
    where the net does not say it; None for what it says. folder: for a temporary file of the
    embeddings, which are mapped into memory, not held. Caffe runs in a child process. Raises
    UserError with Caffe's last words.
    """
    settings = {}
    if Path(net_path).is_dir():
        settings = reading.of_folder(net_path)
        weights = weights or Path(net_path, "deploy.caffemodel")
        net_path = Path(net_path, "deploy.prototxt")
    if weights is None:
        raise UserError("--weights is missing: only a deployed net's folder holds its own")
    if not Path(weights).exists():
        raise UserError(f"{weights}: no such file")
    if not Path(data).exists():
        raise UserError(f"{data}: no such file or folder")
    settings.update(_settings(**given))
    # The child's stderr is caught; the progress line needs the one we have.
    with os.fdopen(os.dup(2), "w") as stream, tempfile.TemporaryFile(dir=folder) as file:
        job = _Job(str(net_path), str(weights), str(data), blob, batch, gpu, settings)
        outcome = child.run(lambda: job.run(file, Progress(stream)))
        if not outcome.ok:
            raise UserError(f"{net_path}: {outcome.last_words}")
        labels, names, width = outcome.value
        embeddings = np.memmap(file, np.float32, "r", shape=(len(labels), width))
    check_labels(labels, names)
    return embeddings, labels, names


def _settings(scale=None, mean=None, crop=None, size=None, gray=None, root=None) -> dict:
    """IdentityData's parameters of what was asked for."""
    width, height = size or (None, None)
    mean = None if not mean else mean[0] if len(mean) == 1 else list(mean)
    chosen = {
        "scale": scale,
        "mean_value": mean,
        "crop_size": crop,
        "width": width,
        "height": height,
        "gray": gray or None,
        "root": root,
    }
    return {name: value for name, value in chosen.items() if value is not None}


@dataclass(frozen=True)
class _Job:
    """What the child process does. Caffe's own reader reads its own kind of data, ours the rest."""

    net: str
    weights: str
    data: str
    blob: str | None
    batch: int
    gpu: int | None
    settings: dict

    def run(self, file, progress):
        """Writes float32 rows to a file; returns labels, names and the length of a row."""
        import caffe

        if self.gpu is None:
            caffe.set_mode_cpu()
        else:
            caffe.set_device(self.gpu)
            caffe.set_mode_gpu()
        netfile.find_python_layers(self.net)
        net = netfile.read(self.net)
        blob = self.blob or _only_output(net)
        kept = making(net, blob)
        readers = [layer for layer in kept if not layer.bottom]
        reader = readers[0] if len(readers) == 1 else None
        same = reader is not None and reader.type == (
            "Data" if Path(self.data, "data.mdb").exists() else "ImageData"
        )
        with progress:
            if same and not self.settings and not _needs_our_reader(self.data, reader):
                return self._by_caffe(net, blob, file, progress)
            return self._by_us(net, blob, reader, kept, file, progress)

    def _by_caffe(self, net, blob, file, progress):
        with tempfile.TemporaryDirectory() as folder:
            names, source = _named(self.data, folder)
            rows = min(self.batch, len(names))
            message, label = extraction_net(net, source, blob, rows)
            built = _build(message, self.weights, folder)
        labels = []
        for start in progress.each(range(0, len(names), rows), f"{blob} of {self.data}"):
            built.forward()
            count = min(rows, len(names) - start)  # the last batch goes on at the start again
            labels.append(built.blobs[label].data.reshape(rows)[:count].copy())
            width = _write(file, built.blobs[blob].data, rows, count)
        return np.concatenate(labels).astype(np.int64), names, width

    def _by_us(self, net, blob, reader, kept, file, progress):
        if not kept:
            extraction_net(net, self.data, blob)  # says what is wrong
        inputs = list(reader.top[:1]) if reader is not None else list(net.input)
        if len(inputs) != 1:
            raise UserError("a net with one Data, ImageData, IdentityData or Input layer is needed")
        settings = {**reading.of_net(net, reader), **self.settings}
        settings.setdefault("root", reading.root_of(reader, self.data))
        batches = reading.Batches(self.data, settings, self.batch)
        message = type(net)(name=net.name)
        entry = message.layer.add(name="images", type="Input", top=inputs)
        shape = (batches.rows, *batches.shape)
        entry.input_param.shape.add(dim=shape)
        _check_input(net, reader, shape)
        message.layer.extend(layer for layer in kept if layer.bottom)
        with tempfile.TemporaryDirectory() as folder:
            built = _build(message, self.weights, folder)
        done, total = 0, len(batches.labels)
        for images in progress.each(batches, f"{blob} of {self.data}"):
            built.blobs[inputs[0]].data[...] = images
            built.forward()
            count = min(batches.rows, total - done)
            width = _write(file, built.blobs[blob].data, batches.rows, count)
            done += count
        return np.asarray(batches.labels, np.int64), list(batches.names), width


def _only_output(net) -> str:
    read = {bottom for layer in net.layer for bottom in layer.bottom}
    made = dict.fromkeys(top for layer in net.layer if layer.bottom for top in layer.top)
    ends = [top for top in made if top not in read or top == list(made)[-1]]
    if len(ends) != 1:
        raise UserError(f"say by --blob which blob is the embedding; there are {', '.join(made)}")
    return ends[0]


def _needs_our_reader(data, reader) -> bool:
    """Caffe's ImageData knows one folder for all names; so do we, unless a net names it."""
    return reader.type == "ImageData" and bool(reading.root_of(reader, data))


def _check_input(net, reader, shape) -> None:
    """An Input says what it takes; an image of other sides would fail far inside of the net."""
    wanted = ()
    if reader is not None and reader.type == "Input":
        wanted = tuple(reader.input_param.shape[0].dim)
    elif reader is None:
        wanted = tuple(net.input_shape[0].dim) if net.input_shape else tuple(net.input_dim)
    if len(wanted) == 4 and tuple(wanted[1:]) != tuple(shape[1:]):
        has, takes = ("x".join(map(str, one[1:])) for one in (shape, wanted))
        raise UserError(
            f"images give {has} (channels, height, width), the net takes {takes}: "
            "see --size, --gray and --crop"
        )


def _named(data, folder):
    """Names of a data set's images, and what Caffe's own reader reads."""
    if Path(data).is_dir():
        names = lmdb_names(data)
        if not names:
            raise UserError(f"{data}: empty")
        return names, data
    names, labels = read_labelled(data)
    check_labels(labels, names)
    # Caffe reads no tabs, no byte order mark, and names relative to where it runs.
    root, source = Path(data).resolve().parent, Path(folder, "list.txt")
    write_text(source, labelled_lines([root / name for name in names], labels))
    return names, source


def _build(message, weights, folder):
    import caffe

    path = Path(folder, "net.prototxt")
    path.write_text(str(message))
    net = caffe.Net(str(path), caffe.TEST)
    fill(net, weights)
    return net


def _write(file, values, rows, count) -> int:
    """Appends the first `count` of `rows` rows; returns the length of one."""
    embeddings = np.ascontiguousarray(values.reshape(rows, -1)[:count], np.float32)
    file.write(embeddings.tobytes())
    file.flush()
    return embeddings.shape[1]


def save(path, embeddings, labels, names=None):
    """Writes the .npz file, whole or not at all."""
    if Path(path).suffix != ".npz":
        raise UserError(f"{path}: a name that ends in .npz is needed")
    arrays = {"embeddings": embeddings, "labels": labels}
    if names is not None:
        arrays["names"] = np.asarray(names)
    with replacing(path) as temporary:
        np.savez(temporary, **arrays)
