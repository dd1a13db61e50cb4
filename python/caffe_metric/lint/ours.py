"""What the layers of this project demand, and what lets them train without learning."""

from __future__ import annotations

import math

from caffe_metric.data.lists import LABEL_LIMIT
from caffe_metric.lint import shapes, sources
from caffe_metric.lint.view import View
from caffe_metric.nets import learning, phases, roles


def check(view: View, layer) -> None:
    """Checks a layer, if it is one of ours."""
    rule = RULES.get(roles.kind(layer))
    if rule is None:
        return
    try:
        given = roles.settings(layer)
    except ValueError as error:
        view.error(layer, f"param_str: {error}")
        return
    rule(view, layer, given)
    _normalization(view, layer)


# --- The layers -------------------------------------------------------------------------------


def norm(view, layer, given) -> None:
    if not given.eps > 0:
        view.error(layer, f"eps is {given.eps:g}, must be > 0")
    shape = view.shape(layer, 0)
    if shape is not None and len(shape) < 2:
        view.error(layer, f"bottom '{layer.bottom[0]}' has shape {show(shape)}, needs 2 axes")


def triplet_loss(view, layer, given) -> None:
    if given.losstype == "RATIO" and not given.margin > 0:
        view.error(layer, f"margin is {given.margin:g}, RATIO divides by it: must be > 0")
    if given.losstype == "HINGE" and given.margin == 0 and len(layer.bottom) != 2:
        view.warning(layer, "margin is 0: equal distances are loss 0, all features may collapse")
    if given.distance == "LP" and not given.p > 0:
        view.error(layer, f"p is {given.p:g}, must be > 0")
    explicit = set(roles.parameters(layer))
    if "mining" in explicit and len(layer.bottom) != 2:
        view.warning(layer, "mining is ignored: it needs two bottoms, features and labels")
    if "num_negatives" in explicit and len(layer.bottom) != 1:
        view.warning(layer, "num_negatives is ignored: it belongs to the layout of one bottom")
    if given.distance != "COSINE":
        _normalised(view, layer, "a margin says little of distances between vectors of any length")
    if len(layer.bottom) == 1:
        _groups(view, layer, given)
    elif len(layer.bottom) == 2:
        _one_label_a_row(view, layer)
        _exact_labels(view, layer)
        _classes_meet(view, layer)
    elif len(layer.bottom) >= 3:
        _same_shapes(view, layer)


def _groups(view, layer, given) -> None:
    if given.num_negatives < 1:
        view.error(layer, "num_negatives is 0, must be >= 1")
        return
    group, rows = 2 + given.num_negatives, view.rows(layer, 0)
    if rows is not None and rows % group:
        view.error(
            layer,
            f"the batch of {rows} rows is no multiple of {group}: anchor, positive and "
            f"{given.num_negatives} negative(s) a group; {_nearest(rows, group)}",
        )


def _same_shapes(view, layer) -> None:
    first = view.shape(layer, 0)
    for place in (1, 2):
        other = view.shape(layer, place)
        if first and other and _differ(first, other):
            view.error(
                layer,
                f"bottoms '{layer.bottom[0]}' and '{layer.bottom[place]}' have shapes "
                f"{show(first)} and {show(other)}, must be the same",
            )
    if len(layer.bottom) == 4 and first and first[0] is not None:
        weights = shapes.size(view.shape(layer, 3))
        if weights is not None and weights != first[0]:
            view.error(layer, f"has {first[0]} rows and {weights} weights, must be one a row")


def _classes_meet(view, layer) -> None:
    """Mining needs two images of a class in a batch."""
    source = _label_source(view, layer)
    known = sources.labels(source) if source is not None else None
    batch = sources.batch_size(source) if source is not None else 0
    if not known or not batch:
        return
    first = known[:batch]
    if len(set(first)) == len(first) > 1:
        view.warning(
            layer,
            f"no two of the first {len(first)} images are of one class: there is nothing to mine. "
            "Order the data by identity (`convert --order pk`)",
        )
    elif len(set(first)) == 1 and len(first) > 1:
        view.warning(
            layer,
            f"the first {len(first)} images are all of class {first[0]}: there is nothing to mine. "
            "Order the data by identity (`convert --order pk`)",
        )


def rank_hard_loss(view, layer, given) -> None:
    if layer.HasField("rank_param") and layer.HasField("rank_hard_loss_param"):
        view.error(layer, "rank_param and rank_hard_loss_param are two spellings: set one")
        return
    for name in ("hard_ratio", "rand_ratio"):
        value = getattr(given, name)
        if not 0 <= value <= 1:
            view.error(layer, f"{name} is {value:g}, must be in [0, 1]")
    if given.neg_num < 1:
        view.error(layer, "neg_num is 0, must be >= 1")
    elif int(given.neg_num * given.hard_ratio) + int(given.neg_num * given.rand_ratio) == 0:
        view.warning(
            layer,
            f"neg_num {given.neg_num} times hard_ratio {given.hard_ratio:g} and rand_ratio "
            f"{given.rand_ratio:g} both round down to 0: nothing is drawn where there are more "
            f"than {given.neg_num} candidates",
        )
    _one_label_a_row(view, layer)
    _exact_labels(view, layer)
    if given.pair_size < 2:
        view.error(layer, f"pair_size is {given.pair_size}, must be >= 2: an anchor, its positive")
        return
    rows = view.rows(layer, 0)
    if rows is not None and rows % given.pair_size:
        view.error(
            layer,
            f"the batch of {rows} rows is no multiple of pair_size {given.pair_size}; "
            + _nearest(rows, given.pair_size),
        )
    _pairs(view, layer, given.pair_size)
    _normalised(view, layer, "the loss compares dot products and is meant for unit vectors")


def _pairs(view, layer, pair_size) -> None:
    """Rows i and i + 1 are of one class, in every batch of every epoch."""
    source = _label_source(view, layer)
    if source is None:
        return
    breaks = sources.shuffled(source)
    if breaks:
        view.error(
            layer,
            f"{breaks} of layer '{source.name}' breaks the pairs that pair_size "
            f"{pair_size} counts on",
        )
        return
    known = sources.labels(source)
    if not known:
        return
    for row in range(0, len(known) - 1, pair_size):
        if known[row] != known[row + 1]:
            view.error(
                layer,
                f"images {row} and {row + 1} of {_source_name(source)} are of classes {known[row]} "
                f"and {known[row + 1]}, an anchor and its positive must be of one: order the data "
                "(`convert --order pairs` or `pk`)",
            )
            return
    if len(known) % pair_size and len(known) < sources.MOST:
        view.error(
            layer,
            f"{_source_name(source)} holds {len(known)} images, no multiple of pair_size "
            f"{pair_size}: the second epoch's pairs would be shifted",
        )


NORMALISING = ("norm", "l2")
READING = ("Input", "DummyData", "Data", "HDF5Data", "ImageData", "IdentityData", "MemoryData")
# Layers after which vectors have the lengths they had before.
PASSING = (
    *("Dropout", "Split", "Flatten", "Reshape", "Slice", "TripletSelect", "Concat"),
    "GatherBatch",
)


def _normalised(view, layer, why: str) -> None:
    """A warning where nothing gives the features length 1."""
    maker = view.maker(layer, 0)
    while maker is not None and roles.kind(maker) in PASSING:
        maker = view.maker(maker, 0) if maker.bottom[0] not in maker.top else None
    if maker is None or roles.kind(maker) in READING:
        return
    name = maker.python_param.layer if maker.type == "Python" else maker.type
    batch_norm = name == "BatchNorm"
    if batch_norm or not any(word in name.lower() for word in NORMALISING):
        view.warning(
            layer,
            f"bottom '{layer.bottom[0]}' comes from layer '{maker.name}' ({maker.type}), without a "
            f"Norm layer between: {why}",
        )


def margin_inner_product(view, layer, given) -> None:
    if not given.num_output:
        view.error(layer, "num_output is 0 or missing, must be the number of classes")
    if not 0 <= given.angular_margin < math.pi / 2:
        view.error(layer, f"angular_margin is {given.angular_margin:g}, must be in [0, pi/2)")
    additive = given.angular_margin or given.cosine_margin
    if additive and given.type != "SINGLE":
        view.error(layer, f"angular_margin and cosine_margin need type SINGLE, not {given.type}")
    plain = given.normalize_weights and not given.normalize_features and given.scale == 1
    if given.gradient == "REFERENCE" and (additive or not plain):
        view.error(
            layer,
            "gradient: REFERENCE is of A-Softmax alone: without normalize_features, scale, "
            "angular_margin and cosine_margin, and with normalize_weights",
        )
    for name in ("base", "gamma", "lambda_min", "iteration"):
        if getattr(given, name) < 0:
            view.error(layer, f"{name} is {getattr(given, name):g}, must be >= 0")
    if not given.scale > 0:
        view.error(layer, f"scale is {given.scale:g}, must be > 0")
    _margin_params(view, layer, given)
    _one_label_a_row(view, layer)
    _exact_labels(view, layer)
    if given.num_output:
        _label_range(view, layer, given.num_output)


def margin_softmax_loss(view, layer, given) -> None:
    margin_inner_product(view, layer, given)
    if not 0 < given.sample_rate <= 1:
        view.error(layer, f"sample_rate is {given.sample_rate:g}, must be in (0, 1]")
    if not 0 <= given.label_smoothing < 1:
        view.error(layer, f"label_smoothing is {given.label_smoothing:g}, must be in [0, 1)")
    if not given.own_update:
        if given.sample_rate < 1 and view.state.phase == phases.TRAIN:
            view.warning(
                layer,
                "sample_rate < 1 without own_update: a solver's momentum and weight decay move the "
                "classes that were not drawn, too, and it goes over all of them",
            )
        return
    if given.triplet:
        view.error(layer, "own_update and triplet exclude each other")
    if view.state.phase != phases.TRAIN:
        return
    specs = list(layer.param)
    if not specs or specs[0].lr_mult or specs[0].decay_mult:
        view.warning(
            layer,
            "own_update: true, but the solver moves the weights, too: write "
            "param { lr_mult: 0 decay_mult: 0 }",
        )
    elif not view.runs_backward(layer):
        view.warning(
            layer,
            "nothing is learned here or below, so Caffe runs no backward pass, in which own_update "
            "works: set force_backward: true",
        )


def _margin_params(view, layer, given) -> None:
    if layer.type != "Python" and "weight_filler" not in roles.parameters(layer):
        view.warning(layer, 'no weight_filler: all weights start at 0; "xavier" is usual')
    specs = list(layer.param)
    most = learning.blob_count(layer)
    if len(specs) > most:
        view.error(layer, f"has {len(specs)} param for {most} blob(s)")
    if given.persist_iteration and len(specs) > 1 and specs[1].lr_mult:
        view.error(
            layer,
            f"the second param is the iteration count, its lr_mult is {specs[1].lr_mult:g}, "
            "must be 0: param { lr_mult: 0 decay_mult: 0 }",
        )
    if given.persist_iteration and layer.type == "Python" and len(specs) < 2:
        view.warning(
            layer,
            "a Python layer cannot protect its iteration count: write "
            "param { } param { lr_mult: 0 decay_mult: 0 }",
        )
    if view.state.phase == phases.TRAIN:
        _frozen(view, layer, given, specs)
    elif not given.persist_iteration and (given.margin_in_test or len(layer.top) > 1):
        view.warning(
            layer,
            f"persist_iteration: false: lambda of a TEST net stays at its value for iteration "
            f"{given.iteration}, while that of training is annealed",
        )
    if given.triplet and view.state.phase == phases.TRAIN:
        learned = not specs or specs[0].lr_mult != 0
        decayed = not specs or specs[0].decay_mult != 0
        if learned or decayed:
            what = " and ".join(
                word for word, on in (("momentum", learned), ("weight decay", decayed)) if on
            )
            view.warning(
                layer,
                f"triplet: true takes the weights from the batch, {what} would move them: write "
                "param { lr_mult: 0 decay_mult: 0 }",
            )


def _frozen(view, layer, given, specs) -> None:
    """Net::Init takes lr_mult 1 for a blob without a param, and so decides what runs backward."""
    if not specs or specs[0].lr_mult:
        return
    if given.triplet and not view.runs_backward(layer):
        view.warning(
            layer,
            "nothing is learned here or below, so Caffe runs no backward pass, in which "
            "triplet: true copies features: it copies nothing. With persist_iteration and one "
            "param { lr_mult: 0 decay_mult: 0 } only, Caffe runs it",
        )
    if given.persist_iteration and len(specs) == 1 and not given.triplet:
        view.warning(
            layer,
            "one param { lr_mult: 0 }, but two blobs: the iteration count has Caffe's default of "
            "1, so the backward pass runs for weights that are frozen. Write a second "
            "param { lr_mult: 0 decay_mult: 0 }",
        )


def _label_range(view, layer, classes: int) -> None:
    source = _label_source(view, layer)
    if source is None:
        return
    if source.type == "DummyData":
        _dummy_labels(view, layer, source, classes)
        return
    known = sources.labels(source)
    if known and not 0 <= min(known) <= max(known) < classes:
        wrong = next(row for row, label in enumerate(known) if not 0 <= label < classes)
        view.error(
            layer,
            f"image {wrong} of {_source_name(source)} has label {known[wrong]}, num_output "
            f"{classes} takes 0 to {classes - 1}",
        )


def _dummy_labels(view, layer, source, classes) -> None:
    fillers = list(source.dummy_data_param.data_filler)
    place = list(source.top).index(layer.bottom[1])
    if not fillers:
        return
    filler = fillers[place] if place < len(fillers) else fillers[0]
    value = filler.value
    if (filler.type or "constant") == "constant" and not (0 <= value < classes and value % 1 == 0):
        view.error(
            layer,
            f"all labels are {value:g}, must be whole numbers from 0 to {classes - 1} for "
            f"num_output {classes}",
        )


def _exact_labels(view, layer) -> None:
    """Labels that Caffe's floats tell apart."""
    source = _label_source(view, layer)
    known = sources.labels(source) if source is not None else None
    if known and max(known) >= LABEL_LIMIT:
        row = next(row for row, label in enumerate(known) if label >= LABEL_LIMIT)
        view.error(
            layer,
            f"image {row} of {_source_name(source)} has label {known[row]}, but Caffe's 32-bit "
            f"labels are exact below {LABEL_LIMIT} only: number the classes from 0",
        )


def over_pairs(view, layer, given) -> None:
    """A loss in which each row of a batch meets all the others."""
    _positive(view, layer, given)
    if not getattr(given, "positive_margin", 0) >= 0:
        view.error(layer, f"positive_margin is {given.positive_margin:g}, must be >= 0")
    if given.rows and layer.type == "Python" and any(learning.rates(layer)):
        view.warning(
            layer,
            "a Python layer cannot protect its memory: write three times "
            "param { lr_mult: 0 decay_mult: 0 }",
        )
    _one_label_a_row(view, layer)
    _exact_labels(view, layer)
    _classes_meet(view, layer)


def over_classes(view, layer, given) -> None:
    """A loss in which each row of a batch meets a learned row of each class."""
    _positive(view, layer, given)
    if not given.num_output:
        view.error(layer, "num_output is 0 or missing, must be the number of classes")
    learned = getattr(given, "proxy_filler", True)
    if layer.type != "Python" and not learned:
        view.warning(layer, "no proxy_filler: proxies of 0 have no direction and never move")
    _one_label_a_row(view, layer)
    if given.num_output:
        _label_range(view, layer, given.num_output)


def _normalization(view, layer) -> None:
    row, python = roles.row_of(layer), layer.type == "Python"
    given = (
        "normalization" in roles.parameters(layer)
        if python
        else (layer.loss_param.HasField("normalization"))
    )
    if row.loss and given and not row.normalization:
        view.warning(layer, "normalization is ignored: the loss is no mean over anchors")


def _positive(view, layer, given) -> None:
    for name in roles.row_of(layer).positive:
        value = getattr(given, name)
        if not value > 0:
            view.error(layer, f"{name} is {value:g}, must be > 0")


RULES = {
    "Norm": norm,
    "TripletLoss": triplet_loss,
    "RankHardLoss": rank_hard_loss,
    "MarginInnerProduct": margin_inner_product,
    "MarginSoftmaxLoss": margin_softmax_loss,
    "BatchContrastiveLoss": over_pairs,
    "MultiSimilarityLoss": over_pairs,
    "CircleLoss": over_pairs,
    "SupConLoss": over_pairs,
    "LiftedStructureLoss": over_pairs,
    "ProxyAnchorLoss": over_classes,
    "CenterLoss": over_classes,
}

# --- Helpers ----------------------------------------------------------------------------------


def _one_label_a_row(view, layer) -> None:
    features, labels = view.shape(layer, 0), view.shape(layer, 1)
    if not features or labels is None:
        return
    axis = roles.parameters(layer).get("axis", 1)
    rows = shapes.size(features, 0, axis)
    count = shapes.size(labels)
    if rows is not None and count is not None and rows != count:
        view.error(
            layer,
            f"has {rows} rows ('{layer.bottom[0]}': {show(features)}) and {count} labels "
            f"('{layer.bottom[1]}': {show(labels)}), must be one a row",
        )


def _label_source(view, layer):
    """The data layer that the labels come from, None where something stands between."""
    maker = view.maker(layer, 1)
    return maker if maker is not None and not maker.bottom else None


def _source_name(layer) -> str:
    field = {"Data": "data_param", "ImageData": "image_data_param"}[layer.type]
    return getattr(layer, field).source


def _differ(first, other) -> bool:
    if len(first) != len(other):
        return True
    return any(a is not None and b is not None and a != b for a, b in zip(first, other))


def _nearest(rows: int, group: int) -> str:
    below = rows // group * group
    return f"take {below} or {below + group}" if below else f"take {group}"


def show(shape) -> str:
    return "(" + ", ".join("?" if number is None else str(number) for number in shape) + ")"
