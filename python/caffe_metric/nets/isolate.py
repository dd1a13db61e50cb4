"""One layer of a net, alone: its bottoms and weights as in the whole net, in a net of its own."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import yaml

from caffe_metric.nets import one_layer, phases, roles
from caffe_metric.support.errors import UserError


@dataclass
class Captured:
    """A layer's description (serialised LayerParameter) and the values it met in the whole net."""

    layer: bytes
    phase: int
    bottoms: dict[str, np.ndarray]
    blobs: list[np.ndarray]
    notes: list[str] = field(default_factory=list)


def capture(net_file: str, net, phase: int, weights, data, seed: int, wanted) -> list[Captured]:
    """Runs a forward pass of the whole net, and keeps what each wanted layer meets.

    net: the parsed NetParameter of net_file. weights: a caffemodel, or None. data: {input: array}.
    wanted(layer) tells which layers to keep.
    """
    import caffe

    caffe.set_random_seed(seed)
    built = caffe.Net(net_file, phase, weights=weights) if weights else caffe.Net(net_file, phase)
    layers = {layer.name: layer for layer in net.layer if phases.included(layer, phase)}
    fill_inputs(built, list(layers.values()), data, np.random.default_rng(seed))
    found = []
    for number, name in enumerate(built._layer_names):
        layer = layers.get(name)
        if layer is not None and wanted(layer):
            values = [built.blobs[blob].data.copy() for blob in built.bottom_names[name]]
            blobs = [blob.data.copy() for blob in built.layers[number].blobs]
            kept = Captured(
                layer.SerializeToString(), phase, dict(zip(layer.bottom, values)), blobs
            )
            _replace_zero_weights(kept, layer, seed)
            found.append(kept)
        built._forward(number, number)
    return found


def _replace_zero_weights(kept: Captured, layer, seed: int) -> None:
    """Weights without a filler are all 0, a point at which little can be seen."""
    if kept.blobs and not kept.blobs[0].any() and 0 not in roles.state_blobs(layer):
        shape = kept.blobs[0].shape
        kept.blobs[0] = np.random.default_rng(seed).normal(0, 0.1, shape).astype(np.float32)
        kept.notes.append("weights were all 0: checked at random ones")


def fill_inputs(built, layers, data, rng) -> None:
    """Input blobs get the given values, or ones that suit the layers that read them."""
    for name, values in data.items():
        if name not in built.inputs:
            known = ", ".join(f"'{known}'" for known in built.inputs) or "no input"
            raise UserError(f"'{name}' is no input of the net, which has {known}")
        if values.dtype.kind not in "fiub":
            raise UserError(f"'{name}' holds {values.dtype}, must be numbers")
    for name in built.inputs:
        blob = built.blobs[name]
        if name in data:
            blob.reshape(*data[name].shape)
            blob.data[...] = data[name]
    built.reshape()
    for name in built.inputs:
        if name not in data:
            built.blobs[name].data[...] = _suitable(name, built, layers, rng)


def _suitable(name: str, built, layers, rng) -> np.ndarray:
    shape = built.blobs[name].data.shape
    readers = [
        (layer, roles.bottom_roles(layer).get(place), place)
        for layer in layers
        for place, bottom in enumerate(layer.bottom)
        if bottom == name
    ]
    wanted = {role for _, role, _ in readers}
    if roles.LABEL in wanted:
        return _labels(shape, [layer for layer, role, _ in readers if role], built)
    if roles.FLAG in wanted or roles.INDEX in wanted:
        return rng.integers(0, 2, shape)
    if roles.WEIGHT in wanted or roles.TARGET in wanted:
        return rng.uniform(0.1, 0.9, shape)
    return rng.normal(0, 1, shape)


def _labels(shape, readers, built) -> np.ndarray:
    """Labels in groups of one class, as many classes as every reader allows, each class twice."""
    count = int(np.prod(shape))
    group, classes = 2, max(2, count // 4)
    for layer in readers:
        row, given = roles.row_of(layer), roles.parameters(layer)
        if row is not None:
            group = max(group, row.group(given))
            classes = min(classes, int(given.get("num_output", classes)))
        elif layer.bottom[0] in built.blobs:
            bottom = built.blobs[layer.bottom[0]].data
            if bottom.ndim > 1:
                classes = min(classes, bottom.shape[1])
    return (np.arange(count) // group % classes).reshape(shape)


def freeze_schedule(layer, t: float) -> str:
    """Makes the lambda of a MarginInnerProduct a constant: what its forward after t others has.

    Returns a note, or "" where there was no schedule.
    """
    given = roles.parameters(layer)
    base, gamma, power, floor = (
        float(given.get(name, default))
        for name, default in (("base", 1), ("gamma", 0), ("power", 1), ("lambda_min", 0))
    )
    if gamma == 0 or not roles.row_of(layer).counts:
        return ""
    value = max(base * (1 + gamma * (t + 1)) ** -power, floor)
    change(layer, base=value, gamma=0.0)
    return f"lambda kept at {value:.6g}"


def change(layer, **values) -> None:
    """Sets parameters of a layer of ours, C++ or Python."""
    if layer.type == "Python":
        layer.python_param.param_str = yaml.safe_dump({**roles.parameters(layer), **values})
        return
    for message in (getattr(layer, place) for place in roles.row_of(layer).messages):
        for name in values.keys() & message.DESCRIPTOR.fields_by_name.keys():
            setattr(message, name, values[name])


class LayerProbe:
    """A layer in a net of its own. forward and gradients are functions of bottoms and blobs.

    Every forward starts from the same random seed and from the blobs it is given, because layers
    rewrite their weights; state blobs (a counter, running means) are left alone.
    """

    def __init__(self, captured: Captured, seed: int = 0):
        from caffe.proto import caffe_pb2

        import caffe

        self.seed = seed
        self.layer = caffe_pb2.LayerParameter.FromString(captured.layer)
        self.state = roles.state_blobs(self.layer)
        row = roles.row_of(self.layer)
        # A counter or running means are left alone; a memory that every forward fills is not.
        self.kept = () if row is not None and row.also else self.state
        self.net = _lonely_net(self.layer, captured)
        names = list(self.net._layer_names)
        self.number = names.index(self.layer.name)
        self.last = len(names) - 1
        self.blobs = list(self.net.layers[self.number].blobs)
        self.bottoms = {name: value.astype(np.float32) for name, value in captured.bottoms.items()}
        self.tops = roles.propagating_tops(self.layer)
        self.shared = set(self.layer.top) & set(self.layer.bottom)  # computed in place
        caffe.set_mode_cpu()
        for blob, value in zip(self.blobs, captured.blobs):
            blob.data[...] = value
        self._set(self.bottoms)
        self._run()
        # Weights that a forward rewrites (to unit rows) are checked where it leaves them.
        self.parameters = [blob.data.copy() for blob in self.blobs]

    def forward(self, bottoms=None, parameters=None) -> list[np.ndarray]:
        """The values of the propagating tops."""
        self._set(bottoms or self.bottoms)
        for number, value in enumerate(parameters or self.parameters):
            if number not in self.kept:
                self.blobs[number].data[...] = value
        self._run()
        return [self.net.blobs[self.layer.top[top]].data.copy() for top in self.tops]

    def gradients(self, projections) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
        """The gradients of sum(projection * top) for each bottom and each blob.

        A bottom the layer gave no gradient is full of NaN.
        """
        self.forward()
        for blob in self.blobs:
            blob.diff[...] = 0
        for name in self.bottoms:
            self.net.blobs[name].diff[...] = np.nan
        for name in self.layer.top:
            self.net.blobs[name].diff[...] = 0
        for top, projection in zip(self.tops, projections):
            self.net.blobs[self.layer.top[top]].diff[...] = projection
        self.net._backward(self.last, 0)
        return (
            {name: self.net.blobs[name].diff.copy() for name in self.bottoms},
            [blob.diff.copy() for blob in self.blobs],
        )

    def move(self, rng) -> None:
        """Moves the features a little, so that no two are tied and none is exactly 0."""
        for place, (name, value) in enumerate(self.bottoms.items()):
            whole = place > 0 and np.array_equal(value, np.round(value))
            if whole or place in roles.bottom_roles(self.layer):
                continue
            size = float(np.sqrt(np.mean(np.square(value)))) or 0.1
            jitter = rng.uniform(-size / 16, size / 16, value.shape)
            self.bottoms[name] = (value + jitter).astype(np.float32)

    def _set(self, bottoms) -> None:
        for name, value in bottoms.items():
            self.net.blobs[name].data[...] = value

    def _run(self) -> None:
        import caffe

        caffe.set_random_seed(self.seed)
        np.random.seed(self.seed)  # noqa: NPY002  a Python layer may draw from it
        random.seed(self.seed)
        self.net._forward(0, self.last)


def _lonely_net(layer, captured: Captured):
    """A net of Input layers and the layer itself; every gradient is asked for."""
    from caffe.proto import caffe_pb2

    net = caffe_pb2.NetParameter(name="gradcheck", force_backward=True)
    copy = net.layer.add()
    copy.CopyFrom(layer)
    for rules in ("include", "exclude", "propagate_down"):
        copy.ClearField(rules)
    copy.ClearField("phase")
    return one_layer.build(one_layer.inputs(captured.bottoms) + str(net), captured.phase)
