"""What the bottoms, tops and blobs of a layer stand for, as far as its type tells."""

from __future__ import annotations

from types import SimpleNamespace

from caffe_metric import suite
from caffe_metric.nets import param_str, schema

# Caffe's own layers; those of this project stand in suite.py. Type: {bottom: what it carries}.
FEATURES, LABEL, WEIGHT = suite.FEATURES, suite.LABEL, suite.WEIGHT
TARGET, INDEX, FLAG = "target", "index", "flag"
BOTTOM_ROLES = {
    "Accuracy": {1: LABEL},
    "BatchReindex": {1: INDEX},
    "ContrastiveLoss": {2: FLAG},
    "Embed": {0: INDEX},
    "HingeLoss": {1: LABEL},
    "InfogainLoss": {1: LABEL, 2: TARGET},
    "LSTM": {1: FLAG},
    "MultinomialLogisticLoss": {1: LABEL},
    "RNN": {1: FLAG},
    "SigmoidCrossEntropyLoss": {1: TARGET},
    "SoftmaxWithLoss": {1: LABEL},
}

# Losses whose bottoms without a role are features, all of them.
KNOWN_LOSSES = {*BOTTOM_ROLES, "EuclideanLoss", *(row.type for row in suite.LAYERS)}

# Blobs that a layer keeps for itself: no solver learns them, they have no gradient.
STATE_BLOBS = {"BatchNorm": (0, 1, 2)}

# Layers that only look, or have no derivative: they have no backward pass.
NO_GRADIENT = {"Accuracy", "ArgMax", "HDF5Output", "Silence", "Threshold"}

# Further tops that report, and pass no gradient on.
REPORTS_FROM_TOP = {"SoftmaxWithLoss": 1, "InfogainLoss": 1, "SigmoidCrossEntropyLoss": 1}

# The older modules' Python layers, by the layer that took their place.
PYTHON_CLASSES = {
    "TripletLayer": "TripletLoss",
    "Norm2Layer": "Norm",
    "DataLayer": "IdentityData",
}


def kind(layer) -> str:
    """The type of a layer; for a Python layer of ours the type of its C++ twin.

    Other Python layers are "Python".
    """
    if layer.type != "Python":
        return layer.type
    name = layer.python_param.layer
    module = layer.python_param.module
    if name in PYTHON_CLASSES:
        return PYTHON_CLASSES[name]
    if module.split(".")[0] in ("caffe_metric", "tripletselectlayer") and name.endswith("Layer"):
        return name[: -len("Layer")]
    return "Python"


def row_of(layer) -> suite.Layer | None:
    """The layer's row in the table of the suite, None where it is not of it."""
    return suite.find(kind(layer))


def bottom_roles(layer) -> dict[int, str]:
    """{bottom: role} of the bottoms that carry no features."""
    row = row_of(layer)
    if row is None:
        return BOTTOM_ROLES.get(layer.type, {})
    roles = row.roles(len(layer.bottom))
    return {place: role for place, role in enumerate(roles) if role != FEATURES}


def state_blobs(layer) -> tuple[int, ...]:
    row = row_of(layer)
    return STATE_BLOBS.get(layer.type, ()) if row is None else row.state_blobs


def propagating_tops(layer) -> list[int]:
    """The tops that pass a gradient on."""
    row = row_of(layer)
    first_report = len(row.tops) if row else REPORTS_FROM_TOP.get(layer.type, len(layer.top))
    tops = range(min(len(layer.top), first_report))
    if len(layer.loss_weight) == len(layer.top) and any(layer.loss_weight):
        return [top for top in tops if layer.loss_weight[top]]
    return list(tops)


def python_parameters(layer) -> dict:
    """The parameters that stand in a Python layer's param_str; {} where it is no YAML mapping."""
    try:
        return param_str.parse(layer.python_param.param_str)
    except ValueError:
        return {}


def parameters(layer) -> dict:
    """The parameters that a layer of ours sets, C++ or Python, by name."""
    if layer.type == "Python":
        return python_parameters(layer)
    row = suite.find(layer.type)
    if row is None or not row.field:
        return {}
    own = next((old for old in row.older_fields if layer.HasField(old)), row.field)
    names = [own, *(field for field, _ in row.also)]
    given = (getattr(layer, name).ListFields() for name in names)
    return {known.name: value for part in given for known, value in part}


# In a param_str, but no fields of the message.
COMMON = ("name", "backend", "normalization", "ignore_label")


def settings(layer) -> SimpleNamespace:
    """All parameters of a layer of ours as attributes, enums by name; ValueError for bad ones."""
    python = layer.type == "Python"
    given = param_str.parse(layer.python_param.param_str) if python else parameters(layer)
    given = {key: value for key, value in given.items() if key not in COMMON}
    return schema.of_layer(row_of(layer)).parse(given)


def counts_batches(layer) -> bool:
    """Whether an IdentityData layer keeps the number of its batch in a blob."""
    # The older DataLayer has none.
    return layer.python_param.layer == "IdentityDataLayer" and bool(
        python_parameters(layer).get("persist_iteration", True)
    )
