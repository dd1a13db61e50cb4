"""A net of one state as lint sees it: layers in order, who makes what, shapes as far as known."""

from __future__ import annotations

from dataclasses import dataclass, field

from caffe_metric.lint import shapes
from caffe_metric.nets import learning, phases


@dataclass(frozen=True)
class Finding:
    """Something to act on. line: of the layer in the file, 0 where it belongs to none."""

    # "error": Caffe would end the process; "warning": it would train wrongly, or data is not here;
    # "note": good to know
    severity: str
    message: str
    line: int = 0
    layer: str = ""

    def __str__(self) -> str:
        place = f"layer '{self.layer}': " if self.layer else ""
        return f"{self.severity}: {place}{self.message}"


@dataclass
class View:
    """The layers of a state, with what is known in front of each.

    makers: {blob: the layer that wrote it last}. shapes: {blob: tuple with None for an unknown
    number, or None}. learned: {blob: whether something below it is learned}. All are updated layer
    by layer, see `walk`. forced: force_backward of the net.
    """

    state: phases.State
    layers: list
    lines: dict[int, int]
    layer_types: frozenset[str] | None
    makers: dict = field(default_factory=dict)
    shapes: dict = field(default_factory=dict)
    learned: dict = field(default_factory=dict)
    forced: bool = False
    findings: list[Finding] = field(default_factory=list)

    def error(self, layer, message: str) -> None:
        self._add("error", layer, message)

    def warning(self, layer, message: str) -> None:
        self._add("warning", layer, message)

    def _add(self, severity, layer, message):
        line = self.lines.get(id(layer), 0)
        self.findings.append(Finding(severity, message, line, layer.name))

    def shape(self, layer, place: int):
        """The shape of a bottom, None where it is not known."""
        if place >= len(layer.bottom):
            return None
        return self.shapes.get(layer.bottom[place])

    def runs_backward(self, layer) -> bool:
        """Whether Caffe runs the backward pass of a layer."""
        return self.forced or learning.reaches(layer, self.learned)

    def rows(self, layer, place: int):
        """The first number of a bottom's shape, None where it is not known."""
        shape = self.shape(layer, place)
        return shape[0] if shape else None

    def maker(self, layer, place: int):
        """The layer that makes a bottom; in-place layers count."""
        return self.makers.get(layer.bottom[place]) if place < len(layer.bottom) else None

    def walk(self):
        """Yields each layer; what it makes is known after it."""
        for layer in self.layers:
            yield layer
            learned = learning.reaches(layer, self.learned)
            made = shapes.infer(layer, [self.shapes.get(bottom) for bottom in layer.bottom])
            for place, top in enumerate(layer.top):
                self.shapes[top] = made[place] if place < len(made) else None
                self.makers[top] = layer
                self.learned[top] = learned


def states(net, layers) -> list[phases.State]:
    """The states whose nets are looked at: those that have data, each kind of net once.

    A net file without data in TEST is trained by a solver without test_iter; one whose data layers
    name stages is run with those. Where no state has data, all are looked at.
    """
    seen = {}
    for state in phases.states(layers):
        present = [layer for layer in layers if phases.included(layer, state)]
        seen.setdefault((state.phase, tuple(map(id, present))), (state, present))
    found = [
        state
        for state, present in seen.values()
        if net.input or any(not layer.bottom and layer.type != "Parameter" for layer in present)
    ]
    return found or [phases.State(phases.TRAIN), phases.State(phases.TEST)]


def of_state(net, layers, state, lines: dict[int, int], layer_types) -> View:
    """The view of a state; the net's own inputs (`input:`) are made by no layer."""
    present = [layer for layer in layers if phases.included(layer, state)]
    view = View(state, present, lines, layer_types, forced=net.force_backward)
    for place, name in enumerate(net.input):
        shape = None
        if place < len(net.input_shape):
            shape = tuple(net.input_shape[place].dim)
        elif len(net.input_dim) >= 4 * place + 4:
            shape = tuple(net.input_dim[4 * place : 4 * place + 4])
        view.shapes[name] = shape
        view.makers[name] = None
    return view
