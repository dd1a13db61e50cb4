"""The iteration count of MarginInnerProduct in models and solver states, made to fit a net.

The layer keeps its count t in a second blob (persist_iteration: true) or does without; Caffe aborts
where a model, or a solver state, and a net differ in that.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caffe_metric.nets import blobs, netfile, phases, roles
from caffe_metric.support.errors import UserError
from caffe_metric.support.strings import without_suffix


@dataclass
class Change:
    """What happens to a layer's second blob."""

    layer: str
    add: bool = False
    drop: bool = False
    t: float | None = None

    def __str__(self) -> str:
        if self.drop:
            return f"layer '{self.layer}': took out the iteration count"
        if self.add:
            return f"layer '{self.layer}': added the iteration count, {self.t:g}"
        if self.t is not None:
            return f"layer '{self.layer}': set the iteration count to {self.t:g}"
        return f"layer '{self.layer}': fits already"


def fits(source: str, net: str) -> bool:
    """Whether a model (or a solver state's model) has the blobs that the net's layers want."""
    layers = _layers(net)
    model = _model_of(source) if blobs.is_state(source) else source
    with blobs.open_model(model) as opened:
        changes = _changes(opened, layers, None, 0)
    return not any(change.add or change.drop for change in changes)


def fit(source: str, target: str, net: str, iteration: int | None = None) -> list[str]:
    """Converts a file as the command does; returns what was done, in lines."""
    layers = _layers(net)
    if blobs.is_hdf5(source) != blobs.is_hdf5(target):
        raise UserError(f"{source} and {target}: must both be .h5 files, or neither")
    if blobs.is_state(source) != blobs.is_state(target):
        raise UserError(f"{source} and {target}: must both be solver states, or both models")
    if not blobs.is_state(source):
        with blobs.open_model(source) as model:
            changes = _changes(model, layers, iteration, 0)
            _apply(model, changes)
            model.save(target)
        return [*map(str, changes), f"wrote {target}"]
    return _fit_state(source, target, layers, iteration)


def _fit_state(source, target, layers, iteration) -> list[str]:
    plain = without_suffix(str(target), ".h5")
    new_model = str(Path(plain).with_suffix(".caffemodel")) + str(target)[len(plain) :]
    with blobs.open_state(source) as state, blobs.open_model(_model_of(source, state)) as model:
        counts = {name: len(found) for name, found in model.shapes().items()}
        before = learnable(layers, counts)
        changes = _changes(model, layers, iteration, state.iteration)
        _apply(model, changes)
        counts = {name: len(found) for name, found in model.shapes().items()}
        after = learnable(layers, counts)
        history = state.history()
        if not before or not history or len(history) % len(before):
            raise UserError(
                f"{source}: its history of {len(history)} blobs does not belong to the "
                f"{len(before)} learned blobs of {model.path}"
            )
        sections = [
            dict(zip(before, history[start : start + len(before)]))
            for start in range(0, len(history), len(before))
        ]
        state.set_history(
            [
                section[place] if place in section else state.zeros((1,))
                for section in sections
                for place in after
            ]
        )
        state.model = new_model
        model.save(new_model)
        state.save(target)
    return [*map(str, changes), f"wrote {new_model}", f"wrote {target}"]


def _layers(net: str) -> list:
    """The layers of a net's TRAIN phase."""
    netfile.quiet_caffe()
    parsed = netfile.read(net)
    layers = [layer for layer in parsed.layer if phases.included(layer, 0)]
    if not any(_counts(layer) for layer in layers):
        raise UserError(f"{net}: has no MarginInnerProduct layer")
    return layers


def _counts(layer) -> bool:
    row = roles.row_of(layer)
    return row is not None and row.counts


def _model_of(source: str, state=None) -> str:
    """The model that a solver state names: as it says, or beside the state."""
    if state is None:
        with blobs.open_state(source) as opened:
            return _model_of(source, opened)
    beside = Path(source).parent / Path(state.model).name
    for candidate in (Path(state.model), beside):
        if state.model and candidate.is_file():
            return str(candidate)
    raise UserError(f"{source}: its model '{state.model}' is not there")


def _changes(model, layers, iteration, done: int) -> list[Change]:
    found = model.shapes()
    changes = []
    for layer in layers:
        if not _counts(layer) or not found.get(layer.name):
            continue
        given = roles.parameters(layer)
        wanted = 2 if given.get("persist_iteration", True) else 1
        change = Change(layer.name)
        if wanted == 1:
            change.drop = len(found[layer.name]) == 2
        elif len(found[layer.name]) == 1:
            start = int(given.get("iteration", 0)) + done
            change.add, change.t = True, start if iteration is None else iteration
        else:
            change.t = iteration
        changes.append(change)
    if not changes:
        names = ", ".join(f"'{layer.name}'" for layer in layers if _counts(layer))
        raise UserError(f"{model.path}: holds no weights of layer {names}")
    return changes


def _apply(model, changes) -> None:
    for change in changes:
        if change.drop:
            model.drop(change.layer, 1)
        elif change.t is not None:
            model.put(change.layer, 1, np.array([change.t], np.float32))


def learnable(layers, counts) -> list[tuple[str, int]]:
    """(layer, blob) in the order of a solver's history: blobs shared by name count once."""
    places, shared = [], set()
    for layer in layers:
        for place in range(counts.get(layer.name, 0)):
            name = layer.param[place].name if place < len(layer.param) else ""
            if name and name in shared:
                continue
            shared.add(name)
            places.append((layer.name, place))
    return places
