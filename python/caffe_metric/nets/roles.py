"""What the bottoms, tops and blobs of a layer stand for, as far as its type tells."""

from __future__ import annotations

import yaml

# Type: {bottom: what it carries}. A role that depends on the number of bottoms has it as a key.
LABEL, TARGET, WEIGHT, INDEX, FLAG = "label", "target", "weight", "index", "flag"
BOTTOM_ROLES = {
    "Accuracy": {1: LABEL},
    "BatchReindex": {1: INDEX},
    "ContrastiveLoss": {2: FLAG},
    "Embed": {0: INDEX},
    "HingeLoss": {1: LABEL},
    "InfogainLoss": {1: LABEL, 2: TARGET},
    "LSTM": {1: FLAG},
    "MarginInnerProduct": {1: LABEL},
    "MultinomialLogisticLoss": {1: LABEL},
    "RankHardLoss": {1: LABEL},
    "RNN": {1: FLAG},
    "SigmoidCrossEntropyLoss": {1: TARGET},
    "SoftmaxWithLoss": {1: LABEL},
    "TripletSelect": {1: LABEL},
}
TRIPLET_ROLES = {2: {1: LABEL}, 4: {3: WEIGHT}}

# Losses whose bottoms without a role are features, all of them.
KNOWN_LOSSES = {*BOTTOM_ROLES, "TripletLoss", "EuclideanLoss"}

# Blobs that a layer keeps for itself: no solver learns them, they have no gradient.
STATE_BLOBS = {"BatchNorm": (0, 1, 2), "MarginInnerProduct": (1,)}

# Layers that only look, or have no derivative: they have no backward pass.
NO_GRADIENT = {"Accuracy", "ArgMax", "HDF5Output", "Silence", "Threshold"}

# Further tops that report, and pass no gradient on.
REPORTS_FROM_TOP = {
    "MarginInnerProduct": 1,
    "RankHardLoss": 1,
    "SoftmaxWithLoss": 1,
    "InfogainLoss": 1,
    "SigmoidCrossEntropyLoss": 1,
    "TripletLoss": 1,
}

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
        return name.removesuffix("Layer")
    return "Python"


def bottom_roles(layer) -> dict[int, str]:
    """{bottom: role} of the bottoms that carry no features."""
    name = kind(layer)
    if name == "TripletLoss":
        return TRIPLET_ROLES.get(len(layer.bottom), {})
    return BOTTOM_ROLES.get(name, {})


def state_blobs(layer) -> tuple[int, ...]:
    return STATE_BLOBS.get(kind(layer), ())


def propagating_tops(layer) -> list[int]:
    """The tops that pass a gradient on."""
    first_report = REPORTS_FROM_TOP.get(kind(layer), len(layer.top))
    tops = range(min(len(layer.top), first_report))
    if len(layer.loss_weight) == len(layer.top) and any(layer.loss_weight):
        return [top for top in tops if layer.loss_weight[top]]
    return list(tops)


PARAMETERS = {
    "Norm": "l2_norm_param",
    "TripletLoss": "triplet_loss_param",
    "RankHardLoss": "rank_param",
    "MarginInnerProduct": "margin_inner_product_param",
}


def python_parameters(layer) -> dict:
    """The parameters that stand in a Python layer's param_str; {} where it is no YAML mapping."""
    text = layer.python_param.param_str
    for candidate in (text, "{" + text + "}"):  # older layers were given it without the braces
        try:
            values = yaml.safe_load(candidate)
        except yaml.YAMLError:
            continue
        if isinstance(values, dict):
            return values
    return {}


def parameters(layer) -> dict:
    """The parameters that a layer of ours sets, C++ or Python, by name."""
    if layer.type == "Python":
        return python_parameters(layer)
    name = PARAMETERS.get(layer.type)
    if layer.type == "RankHardLoss" and layer.HasField("rank_hard_loss_param"):
        name = "rank_hard_loss_param"
    if name is None:
        return {}
    return {known.name: value for known, value in getattr(layer, name).ListFields()}
