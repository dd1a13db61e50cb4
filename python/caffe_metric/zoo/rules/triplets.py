"""TripletLoss in the words of FaceNet's, BVLC's pull requests, caffe-sl's and tyandzx's code, and
of Python modules."""

from __future__ import annotations

import yaml

_COSINE, _SEMIHARD, _ALL = 3, 1, 0
_FULL, _BATCH_SIZE = 0, 2


def rewrite(net, layer) -> None:
    """TripletLoss."""
    message = layer.message
    given = message.triplet_loss_param
    if given.mu or given.sample:
        net.refuse(
            layer,
            "TripletLoss",
            "mu or sample, of BatchTripletLoss; nearest: TripletLoss with mining ALL",
        )
        return
    changes, why = [], []
    if len(message.bottom) == 1 and _is_number_2(layer):
        net.refuse(
            layer,
            "TripletLoss",
            "losstype 2 of groups is a loss of exponentials, not SOFT; nearest: losstype SOFT",
            layer.line_of("triplet_loss_param.losstype"),
        )
        return
    if given.HasField("num_triplets"):
        if given.HasField("num_negatives"):
            net.refuse(layer, "TripletLoss", "both num_triplets and num_negatives: keep one")
            return
        given.num_negatives = given.num_triplets
        given.ClearField("num_triplets")
        changes.append(f"num_negatives {given.num_negatives}")
        why.append("num_triplets is an older name of it")
    for name in ("mu", "sample"):
        if given.HasField(name):
            given.ClearField(name)
            changes.append(f"without {name}")
    if changes:
        net.touch(layer)
        net.changed(layer, "TripletLoss", f"TripletLoss with {', '.join(changes)}", "; ".join(why))
        return
    why = ""
    if len(message.bottom) == 2 and not given.HasField("mining"):
        why = "mined in the batch: SEMIHARD, the default"
    net.stays(layer, "TripletLoss", why)


def _is_number_2(layer) -> bool:
    values = [
        value
        for entry in layer.entry.all("triplet_loss_param", "losstype")
        for value in entry.values
    ]
    return values[-1:] == ["2"]


def batch(net, layer) -> None:
    """BatchTripletLoss: the mean hinge over all triplets of a batch."""
    message = layer.message
    given = message.triplet_loss_param
    if given.mu or given.sample:
        name = "mu" if given.mu else "sample"
        net.refuse(
            layer,
            layer.type,
            f"{name}: a second loss over pairs, or a part of the triplets;"
            " nearest: TripletLoss with mining ALL",
            layer.line_of(f"triplet_loss_param.{name}"),
        )
        return
    reader = net.reader_of(layer, 1)
    if reader:
        net.refuse(layer, layer.type, f"layer '{reader}' reads its further tops")
        return
    if len(message.top) > 1:
        net.drop_tops(layer, 1)
    made = _loss(net, message, message.bottom[:2])
    param = made.triplet_loss_param
    param.mining = _ALL
    if given.HasField("margin"):
        param.margin = given.margin
    made.loss_param.normalization = _FULL
    net.changed(
        layer,
        layer.type,
        "TripletLoss with mining ALL, normalization FULL",
        "the published value, with its gradient: the published one is of the semi-hard "
        "triplets alone and forgets loss_weight",
    )
    net.replace(layer, [made])


def _loss(net, message, bottoms):
    made = net.new_layer(message.name, "TripletLoss", bottoms, message.top, message)
    made.loss_weight.extend(message.loss_weight)
    return made


def sampler(net, layer) -> None:
    """SampleTriplet, and the TripletLoss of cosines that reads its table."""
    readers = {
        id(reader): reader
        for top in range(len(layer.message.top))
        for reader, _ in net.graph.readers(layer, top)
    }
    losses = [reader for reader in readers.values() if reader.type == "TripletLoss"]
    if len(losses) != 1 or len(readers) != 1:
        net.refuse(
            layer,
            "SampleTriplet",
            "its table must be read by one TripletLoss alone; nearest: TripletLoss with mining",
        )
        return
    loss = losses[0]
    label = _label_of(net, layer)
    if not label:
        net.refuse(
            layer,
            "SampleTriplet",
            "the labels of the batch were not found: TripletLoss mines by them",
        )
        return
    message = loss.message
    made = _loss(net, message, [message.bottom[0], label])
    del made.top[1:]
    param = made.triplet_loss_param
    given = message.triplet_loss_param
    param.margin = given.margin if given.HasField("margin") else 0.1
    param.distance = _COSINE
    param.mining = _SEMIHARD
    made.loss_param.normalization = _BATCH_SIZE
    net.changed(
        layer,
        "SampleTriplet",
        f"mining of layer '{loss.name}'",
        "triplets are found by the labels in the batch",
    )
    net.changed(
        loss,
        "TripletLoss of SampleTriplet",
        f"TripletLoss with distance COSINE, margin {param.margin:g}, normalization BATCH_SIZE",
        "triplets are mined by the layer itself: SEMIHARD",
    )
    net.replace(layer, [])
    net.replace(loss, [made])


def _label_of(net, layer) -> str:
    """The second top of the one data layer that a layer's features come from."""
    seen, todo, sources = set(), [layer], {}
    while todo:
        at = todo.pop()
        for place in range(len(at.message.bottom)):
            maker = net.graph.maker(at, place)
            if maker is None or id(maker) in seen:
                continue
            seen.add(id(maker))
            if maker.message.bottom:
                todo.append(maker)
            else:
                sources[id(maker)] = maker
    found = [source for source in sources.values() if len(source.message.top) > 1]
    return found[0].message.top[1] if len(found) == 1 else ""


# --- Python modules -----------------------------------------------------------------------------


def python_loss(net, layer) -> None:
    """TripletLayer: three bottoms, a margin in its param_str."""
    message = layer.message
    was = f"Python layer {message.python_param.layer}"
    try:
        values = yaml.safe_load("{" + message.python_param.param_str.strip().strip("{}") + "}")
        margin = float(values.get("margin", 0.2))
    except (yaml.YAMLError, ValueError, TypeError, AttributeError):
        net.refuse(
            layer,
            was,
            f"param_str '{message.python_param.param_str}' has no margin that can be read",
        )
        return
    if len(message.bottom) not in (3, 4) or "margin" not in values:
        net.refuse(layer, was, "must have 3 bottoms and a margin in its param_str")
        return
    made = _loss(net, message, message.bottom[:3])
    if net.reader_of(layer, 1):
        net.refuse(layer, was, f"layer '{net.reader_of(layer, 1)}' reads its second top")
        return
    del made.top[1:], made.loss_weight[1:]
    made.triplet_loss_param.margin = margin
    net.changed(
        layer,
        was,
        f"TripletLoss with margin {margin:g}",
        "the same formula; loss_weight counts here",
    )
    net.replace(layer, [made])


def python_select(net, layer) -> None:
    """TripletSelectLayer: of thirds of a batch under its older name, else by labels."""
    message = layer.message
    param = message.python_param
    was = f"Python layer {param.module}.{param.layer}"
    if param.module == "tripletselectlayer":
        net.stays(layer, was, "installed beside the package: thirds of a batch")
    elif len(message.bottom) != 2:
        param.module = "tripletselectlayer"
        net.touch(layer)
        net.changed(
            layer,
            was,
            "Python layer tripletselectlayer.TripletSelectLayer",
            "anchors, positives and negatives are thirds of a batch",
        )
    else:
        param.module, param.param_str = "caffe_metric.layers", ""
        net.touch(layer)
        net.changed(
            layer, was, "Python layer caffe_metric.layers.TripletSelectLayer", "selects by labels"
        )


def python_data(net, layer) -> None:
    """DataLayer: the older module's name is installed, others' are the user's own."""
    param = layer.message.python_param
    was = f"Python layer {param.module}.{param.layer}"
    own = param.module == "datalayer"
    net.stays(
        layer,
        was,
        "installed beside the package, reads config.py" if own else "the user's own module",
    )
