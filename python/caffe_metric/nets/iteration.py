"""The blobs that MarginInnerProduct and MarginSoftmaxLoss keep beside their weights, in models and
solver states, made to fit a net.

A layer keeps its count t in a blob (persist_iteration: true) or does without; with own_update it
keeps its momentum and its rate, too. Caffe aborts where a model, or a solver state, and a net
differ in that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from caffe_metric.nets import blobs, learning, netfile, phases, roles
from caffe_metric.support.errors import UserError
from caffe_metric.support.strings import without_suffix

WEIGHTS, COUNT, MOMENTUM, RATE = "the weights", "the iteration count", "the momentum", "the rate"
# What the blobs of a layer are, by their number.
BLOBS = {
    1: (WEIGHTS,),
    2: (WEIGHTS, COUNT),
    3: (WEIGHTS, MOMENTUM, RATE),
    4: (WEIGHTS, COUNT, MOMENTUM, RATE),
}


@dataclass
class Change:
    """What happens to a layer's blobs: those it has, those it gets, and the values of some."""

    layer: str
    have: tuple[str, ...]
    want: tuple[str, ...]
    values: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def fits(self) -> bool:
        return self.have == self.want

    def apply(self, model) -> None:
        """Takes out, inserts and sets blobs."""
        for place in reversed(range(len(self.have))):
            if self.have[place] not in self.want:
                model.drop(self.layer, place)
        for place, name in enumerate(self.want):
            if name not in self.have:
                model.insert(self.layer, place, self.values[name])
            elif name in self.values:
                model.put(self.layer, place, self.values[name])

    def __str__(self) -> str:
        done = [f"took out {name}" for name in self.have if name not in self.want]
        for name, value in self.values.items():
            number = f"{value.flat[0]:g}" if value.size == 1 else "zeros"
            done.append(
                f"set {name} to {number}" if name in self.have else f"added {name}, {number}"
            )
        return f"layer '{self.layer}': {', '.join(done) or 'fits already'}"


def fits(source: str, net: str) -> bool:
    """Whether a model (or a solver state's model) has the blobs that the net's layers want."""
    layers = _layers(net)
    model = _model_of(source) if blobs.is_state(source) else source
    with blobs.open_model(model) as opened:
        return all(change.fits for change in _changes(opened, layers, None, 0))


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
            for change in changes:
                change.apply(model)
            model.save(target)
        return [*map(str, changes), f"wrote {target}"]
    return _fit_state(source, target, layers, iteration)


def fit_blobs(model, layer: str, wanted: list[np.ndarray]) -> bool:
    """Makes a layer of a model have the blobs of a net's layer, whose values the new ones get;
    whether anything changed."""
    shapes = model.shapes()[layer]
    change = Change(layer, _names(model, layer, shapes), BLOBS[len(wanted)])
    change.values = {
        name: np.array(value) for name, value in zip(change.want, wanted) if name not in change.have
    }
    change.apply(model)
    return not change.fits


def _fit_state(source, target, layers, iteration) -> list[str]:
    plain = without_suffix(str(target), ".h5")
    new_model = str(Path(plain).with_suffix(".caffemodel")) + str(target)[len(plain) :]
    with blobs.open_state(source) as state, blobs.open_model(_model_of(source, state)) as model:
        before = learnable(layers, _counts_of(model))
        changes = _changes(model, layers, iteration, state.iteration)
        for change in changes:
            change.apply(model)
        shapes = model.shapes()
        after = learnable(layers, _counts_of(model))
        history = state.history()
        if not before or not history or len(history) % len(before):
            raise UserError(
                f"{source}: its history of {len(history)} blobs does not belong to the "
                f"{len(before)} learned blobs of {model.path}"
            )
        old = {change.layer: change.have for change in changes}
        new = {change.layer: change.want for change in changes}
        sections = [
            dict(zip(_keys(before, old), history[start : start + len(before)]))
            for start in range(0, len(history), len(before))
        ]
        state.set_history(
            [
                section[key] if key in section else state.zeros(shapes[layer][place])
                for section in sections
                for key, (layer, place) in zip(_keys(after, new), after)
            ]
        )
        state.model = new_model
        model.save(new_model)
        state.save(target)
    return [*map(str, changes), f"wrote {new_model}", f"wrote {target}"]


def _counts_of(model) -> dict[str, int]:
    return {name: len(found) for name, found in model.shapes().items()}


def _keys(places, names) -> list:
    """The blobs at these places, by what they are where their places may change."""
    return [(layer, names[layer][place] if layer in names else place) for layer, place in places]


def _layers(net: str) -> list:
    """The layers of a net's TRAIN phase."""
    netfile.quiet_caffe()
    parsed = netfile.read(net)
    layers = [layer for layer in parsed.layer if phases.included(layer, 0)]
    if not any(_counts(layer) for layer in layers):
        raise UserError(f"{net}: has no MarginInnerProduct or MarginSoftmaxLoss layer")
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
        shapes = found.get(layer.name)
        if not _counts(layer) or not shapes:
            continue
        try:
            given, wanted = roles.settings(layer), learning.blob_count(layer)
        except ValueError as error:
            raise UserError(f"layer '{layer.name}': {error}") from error
        have = _names(model, layer.name, shapes)
        change = Change(layer.name, have, BLOBS[wanted])
        if COUNT in change.want and (COUNT not in have or iteration is not None):
            count = given.iteration + done if iteration is None else iteration
            change.values[COUNT] = np.array([count], np.float32)
        if MOMENTUM in change.want and MOMENTUM not in have:
            change.values[MOMENTUM] = np.zeros(shapes[0], np.float32)
            change.values[RATE] = np.array([given.update_rate], np.float32)
        changes.append(change)
    if not changes:
        names = ", ".join(f"'{layer.name}'" for layer in layers if _counts(layer))
        raise UserError(f"{model.path}: holds no weights of layer {names}")
    return changes


def _names(model, layer, shapes) -> tuple[str, ...]:
    if len(shapes) not in BLOBS:
        raise UserError(
            f"{model.path}: layer '{layer}' has {len(shapes)} blobs, at most 4 are known"
        )
    return BLOBS[len(shapes)]


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
