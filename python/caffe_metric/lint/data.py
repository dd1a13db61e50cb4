"""What a data layer reads: is it there, does it fit the net, are its groups kept whole."""

from __future__ import annotations

import os
from pathlib import Path

from caffe_metric.lint import sources
from caffe_metric.lint.sources import crop_of
from caffe_metric.nets import phases
from caffe_metric.support.errors import UserError
from caffe_metric.support.text import read_text

# Stock layers that take a label in their second bottom for one of the first one's channels.
CLASSIFIERS = {"SoftmaxWithLoss", "Accuracy", "MultinomialLogisticLoss", "HingeLoss"}


def check(view, layer) -> None:
    """All of them, for one layer."""
    if layer.type in CLASSIFIERS:
        _labels_in_range(view, layer)
    source = sources.source(layer)
    if not source:
        return
    if not sources.is_there(layer):
        view.warning(layer, f"{source} is not there (looked for from {os.getcwd()})")
        return
    if layer.type == "ImageData":
        _readable_list(view, layer, source)
    if layer.type in ("Data", "ImageData"):
        _transform(view, layer)
    if view.state.phase == phases.TRAIN:
        _whole_groups(view, layer, source)


def _readable_list(view, layer, source) -> None:
    """ImageData takes what stands before the last ' ' of a line for the file's name."""
    if Path(source).read_bytes()[:3] == b"\xef\xbb\xbf":
        view.error(
            layer, f"{source} begins with a byte order mark, which Caffe takes for part of a name"
        )
    try:
        lines = read_text(source).split("\n")
    except UserError as error:
        view.error(layer, str(error))
        return
    for number, line in enumerate(lines, 1):
        words = line.rsplit(None, 1)
        if len(words) == 2 and not line.rstrip()[: -len(words[1])].endswith(" "):
            view.error(
                layer,
                f"{source}:{number}: no ' ' before the label, where Caffe cuts a line: it would "
                "take all of it for the file's name, and the label for 0",
            )
            return


def _transform(view, layer) -> None:
    shape = sources.image(layer)
    given = getattr(layer, "transform_param", None)
    if shape is None or given is None:
        return
    channels, height, width = shape
    means, crop = len(given.mean_value), crop_of(layer)
    if means and given.mean_file:
        view.error(layer, "has mean_value and mean_file: one of them only")
    if means > 1 and means != channels:
        view.error(
            layer,
            f"has {means} mean_value for images of {channels} channel(s): one, or one a channel",
        )
    if height and crop > min(height, width):
        view.error(layer, f"crop_size is {crop}, the images are {width}x{height}")


def _whole_groups(view, layer, source) -> None:
    """Of a database by `convert`, the batch keeps the groups that its order made."""
    order, batch = sources.order(source), sources.batch_size(layer)
    if order is None or not batch:
        return
    step = order["batch"]
    if batch % step:
        what = "identities and their images" if order["order"] == "pk" else "images of an identity"
        view.warning(
            layer,
            f"batch_size {batch} is no multiple of {step}: {source} has its {what} in groups of "
            f"{step} (order {order['order']}), which batches would tear",
        )


def _labels_in_range(view, layer) -> None:
    shape, maker = view.shape(layer, 0), view.maker(layer, 1)
    if not shape or len(shape) < 2 or maker is None or maker.bottom:
        return
    classes, known = shape[1], sources.labels(maker)
    if not classes or not known:
        return
    loss = getattr(layer, "loss_param", None)
    ignored = {loss.ignore_label} if loss is not None and loss.HasField("ignore_label") else set()
    for row, label in enumerate(known):
        if not 0 <= label < classes and label not in ignored:
            above = view.maker(layer, 0)
            name = f" of layer '{above.name}'" if above is not None else ""
            view.error(
                layer,
                f"image {row} of {sources.source(maker)} has label {label}, the {classes} outputs"
                f"{name} take 0 to {classes - 1}",
            )
            return
