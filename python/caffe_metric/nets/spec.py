"""The layers of the suite for `caffe.NetSpec`, by their parameters' own names.

    from caffe_metric import spec

    n = caffe.NetSpec()
    n.unit = spec.Norm(n.embedding, eps=1e-6)
    n.loss = spec.TripletLoss(n.unit, n.label, margin=0.2, mining="SEMIHARD")
    n.rank, n.active = spec.RankHardLoss(n.unit, n.label, neg_num=4, ntop=2, python=True)

`caffe.layers` finds a layer's message by the layer's name, which fails where the message has
another one: Norm, RankHardLoss. What is no parameter of the layer is a field of LayerParameter
(loss_weight, loss_param, include ...) or one of NetSpec's own (ntop, in_place). With `python` the
layer is its twin of caffe_metric.layers, for a Caffe that is not rebuilt; TripletSelect and
IdentityData always are. Raises ValueError for an unknown name, with the nearest known one, and for
a value that its field does not allow.
"""

from __future__ import annotations

import functools
import json

from caffe_metric import layers, suite
from caffe_metric.losses.on_arrays import ArrayHost
from caffe_metric.nets import schema

NETSPEC = ("ntop", "in_place")

__all__ = sorted(layer.type for layer in suite.LAYERS)


def __getattr__(name: str):
    row = suite.find(name)
    if row is None:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return functools.partial(_layer, row)


def __dir__():
    return __all__


def _layer(row: suite.Layer, *bottoms, python: bool = False, **given):
    """The tops, as `caffe.layers` gives them."""
    write = _python if python or not row.native else _native
    try:
        if len(bottoms) not in row.bottom_counts:
            counts = " or ".join(map(str, row.bottom_counts))
            raise ValueError(f"has {len(bottoms)} bottoms, must have {counts}")
        return write(row, bottoms, given)
    except ValueError as error:
        raise ValueError(f"{row.type}: {error}") from None


def _native(row, bottoms, given):
    import caffe

    names = [field.name for field in schema.of_layer(row).fields]
    schema.refuse_unknown(given, [*names, *_general()])
    for field, message in row.messages.items():
        known = schema.message(message).fields
        own = {one.name: _value(one, given.pop(one.name)) for one in known if one.name in given}
        if own:
            given[field] = {**given.get(field, {}), **own}
    return getattr(caffe.layers, row.type)(*bottoms, **given)


def _value(field: schema.Field, value):
    """A value as protobuf takes it. Raises ValueError."""
    try:
        parsed = field.parse(value)
    except ValueError as error:
        raise ValueError(f"{field.name}: {error}") from None
    return field.enum.values[parsed] if field.enum else parsed


def _python(row, bottoms, given):
    import caffe

    general = {name: given.pop(name) for name in _general() if name in given and name != "type"}
    type(row.type, (layers.without_caffe(row.python_class), ArrayHost), {})().accept(given)
    if row.loss:
        general.setdefault("loss_weight", [1] + [0] * (general.get("ntop", 1) - 1))
    python_param = {"module": "caffe_metric.layers", "layer": row.python_class}
    if given:
        python_param["param_str"] = json.dumps(given)  # JSON is YAML
    return caffe.layers.Python(*bottoms, python_param=python_param, **general)


def _general() -> list[str]:
    from caffe.proto import caffe_pb2

    return [field.name for field in caffe_pb2.LayerParameter.DESCRIPTOR.fields] + list(NETSPEC)
