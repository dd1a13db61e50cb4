"""What a net starts from: weights of other trainings, or a solver state of this one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from caffe_metric.nets import blobs
from caffe_metric.nets.iteration import fit_blobs, learnable
from caffe_metric.support.errors import UserError


def load_weights(net, path, aside, keeps, counting=(), fresh=()) -> list[str]:
    """Fills a pycaffe net from a model; returns what was filled, and what starts anew, in lines.

    aside: a folder for a model that was made to fit. keeps: {layer: blobs that it keeps for
    itself}: a model that lacks these, or has them in excess, is made to fit. counting: layers whose
    blobs are MarginInnerProduct's: see iteration.py. fresh: layers that start anew whatever the
    model has. Raises UserError.
    """
    here = _shapes(net)
    with blobs.open_model(path) as model:
        there = model.shapes()
        filled = [name for name in here if here[name] and there.get(name) and name not in fresh]
        changed = False
        for name in filter(there.__contains__, here):
            kept = [blob.data for blob in net.params.get(name, [])]
            if name in counting and there[name] and kept:
                changed |= fit_blobs(model, name, kept)
            else:
                places = range(99) if name in fresh else keeps.get(name, ())
                changed |= _fit_count(model, name, len(there[name]), kept, places)
        if changed:
            there = model.shapes()
        _compare(path, there, here)
        if any(here[name] for name in here if name not in fresh) and not filled:
            wanted = [name for name in here if here[name]]
            raise UserError(
                f"{path}: is of another net: it has weights of {_some(filter(there.get, there))}, "
                f"the net of {_some(wanted)}"
            )
        fitted = path
        if changed:
            fitted = str(Path(aside) / f"fitted{''.join(Path(path).suffixes[-2:])}")
            model.save(fitted)
    kept = [(blob, np.array(blob.data)) for name in fresh for blob in net.params.get(name, [])]
    net.copy_from(str(fitted))
    for blob, values in kept:
        blob.data[...] = values
    lines = [f"{path}: fills {_some(filled, 1000)}"]
    if anew := [name for name in here if here[name] and name not in (*filled, *fresh)]:
        lines.append(f"{path}: has no weights of {_some(anew, 1000)}: they start anew")
    return lines


def check_state(net, layers, state_path, model_path, histories: int) -> None:
    """Raises UserError where a solver state is of another net, or of another kind of solver.

    layers: the net's, as its file has them. histories: how many the solver keeps of each gradient.
    """
    here = _shapes(net)
    with blobs.open_model(model_path) as model:
        there = model.shapes()
    _compare(model_path, there, here)
    for name in here:
        if here[name] and name not in there:
            raise UserError(f"{model_path}: is of another net: it has no layer '{name}'")
    for name in filter(there.get, there):
        if name not in here:
            raise UserError(f"{model_path}: is of another net: the net has no layer '{name}'")
    with blobs.open_state(state_path) as state:
        found = len(state.history())
    counts = {name: len(shapes) for name, shapes in here.items()}
    wanted = histories * len(learnable(layers, counts)) if layers else found
    if found != wanted:
        raise UserError(
            f"{state_path}: is of another kind of solver ({found} blobs of history, {wanted} "
            "wanted)"
        )


def _shapes(net):
    """{layer: shapes of its blobs, none or more}."""
    return {
        name: [tuple(blob.shape) for blob in net.params.get(name, [])] for name in net._layer_names
    }


def _fit_count(model, name, count, wanted, places) -> bool:
    """Adds to the `count` blobs of a layer, or takes out, those at some places; whether it did."""
    before = count
    for place in places:
        if count == place < len(wanted):
            model.insert(name, place, np.array(wanted[place]))
            count += 1
    for place in reversed(places):
        if len(wanted) <= place == count - 1:
            model.drop(name, place)
            count -= 1
    return count != before


def _compare(path, there, here):
    for name, wanted in here.items():
        if name not in there:
            continue
        found = there[name]
        if len(found) != len(wanted):
            raise UserError(
                f"{path}: layer '{name}' has {len(found)} blobs, {len(wanted)} in the net: another "
                "name lets the layer start anew"
            )
        for place, (old, new) in enumerate(zip(found, wanted)):
            if _plain(old) != _plain(new):
                raise UserError(
                    f"{path}: blob {place} of layer '{name}' is {_by(old)}, {_by(new)} in the net: "
                    "another name lets the layer start anew"
                )


def _plain(shape):
    """Older models give a vector as 1 x 1 x 1 x N."""
    shape = list(shape)
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return shape


def _by(shape):
    return " x ".join(map(str, shape)) or "a number"


def _some(names, most=4):
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f"'{name}'" for name in names[:most]) + more if names else "no layer"
