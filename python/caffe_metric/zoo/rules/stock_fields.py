"""Fields that forks gave to Caffe's own layers: dropped where they change nothing, else named."""

from __future__ import annotations

from caffe_metric.zoo.rules import scales


def rewrite(net, layer) -> None:
    """Every layer comes here, after the rule of its type."""
    message = layer.message
    if layer.now == [] or layer.left or net.refused(layer):
        return
    _product(net, layer)
    _scale(net, layer)
    _accuracy(net, layer)
    _softmax(net, layer)
    transform(net, layer)
    _filler(net, layer, message)


def _product(net, layer) -> None:
    given = layer.message.inner_product_param
    if given.HasField("normalize") and not given.normalize:
        net.clear(layer, "inner_product_param.normalize")
        net.changed(layer, "InnerProduct with normalize false", "InnerProduct", "false is nothing")


def _scale(net, layer) -> None:
    message = layer.message
    given = message.scale_param
    if not message.HasField("scale_param") or not scales.clamps(given):
        return
    value = scales.constant(net, layer)
    where = layer.line_of(
        "scale_param.min_value" if given.HasField("min_value") else "scale_param.max_value"
    )
    if value is None:
        net.refuse(
            layer,
            "Scale with min_value or max_value",
            "it learns, and the clamp would change what it learns; nearest: Scale without it",
            where,
        )
        return
    for name in ("min_value", "max_value"):
        given.ClearField(name)
    why = "a constant: the clamp changes nothing"
    if given.filler.value != value or not given.HasField("filler"):
        given.filler.type, given.filler.value = "constant", value
        why = f"a constant: clamped, {value:g}"
    net.touch(layer)
    net.changed(layer, "Scale with min_value or max_value", "Scale", why)


def _accuracy(net, layer) -> None:
    """The least is the best: the greatest of the numbers with the other sign is."""
    message = layer.message
    given = message.accuracy_param
    if not given.HasField("min_is_better"):
        return
    least = given.min_is_better
    net.clear(layer, "accuracy_param.min_is_better")
    if not least:
        net.changed(layer, "Accuracy with min_is_better false", "Accuracy", "false is nothing")
        return
    name = net.free_name(f"{message.name}_negative")
    negative = net.new_layer(name, "Power", [message.bottom[0]], [name], message)
    negative.power_param.scale = -1
    message.bottom[0] = name
    net.changed(
        layer,
        "Accuracy with min_is_better",
        "Power with scale -1, and Accuracy",
        "the least is the greatest of the negative",
    )
    net.replace(layer, [negative, message])


def _softmax(net, layer) -> None:
    message = layer.message
    given = message.softmax_param
    if given.HasField("normalize_type"):
        kind = given.normalize_type
        if kind not in ("", "Softmax"):
            net.refuse(
                layer,
                layer.type,
                f"normalize_type {kind}: no softmax; nearest: SoftmaxWithLoss",
                layer.line_of("softmax_param.normalize_type"),
            )
            return
        net.clear(layer, "softmax_param.normalize_type")
        net.changed(layer, "normalize_type Softmax", "dropped", "it is the only one")
    if given.HasField("label_smooth_factor"):
        if given.label_smooth_factor:
            net.refuse(
                layer,
                layer.type,
                f"label_smooth_factor {given.label_smooth_factor:g}; "
                "nearest: MarginSoftmaxLoss with label_smoothing",
                layer.line_of("softmax_param.label_smooth_factor"),
            )
            return
        net.clear(layer, "softmax_param.label_smooth_factor")
        net.changed(layer, "label_smooth_factor 0", "dropped", "0 is nothing")


_TRANSFORMS = (
    "apply_probability",
    "smooth_filtering",
    "max_smooth",
    "max_color_shift",
    "contrast_brightness_adjustment",
    "min_contrast",
    "max_contrast",
)


def transform(net, layer) -> None:
    """The private transformations of CombinedMargin's nets."""
    given = layer.message.transform_param
    private = [name for name in _TRANSFORMS if given.HasField(name)]
    if not private:
        return
    acts = [
        name
        for name in ("smooth_filtering", "contrast_brightness_adjustment", "max_color_shift")
        if getattr(given, name)
    ]
    if acts and not (given.HasField("apply_probability") and given.apply_probability == 0):
        net.refuse(
            layer,
            f"{layer.type} with transform_param.{acts[0]}",
            "changes the images at "
            "random, as no layer here does; nearest: images that are changed before "
            "`caffe-metric convert`",
            layer.line_of(f"transform_param.{acts[0]}"),
        )
        return
    for name in private:
        net.clear(layer, f"transform_param.{name}")
    net.changed(
        layer,
        f"transform_param with {', '.join(private)}",
        "dropped",
        "they are off: nothing changes",
    )


def _filler(net, layer, message) -> None:
    """gaussian_unitball fills rows of unit length."""
    for field, value in message.ListFields():
        if field.message_type is None or hasattr(value, "add"):
            continue
        for inner, filler in value.ListFields():
            if (
                inner.message_type is not None
                and inner.message_type.name == "FillerParameter"
                and not hasattr(filler, "add")
                and filler.type == "gaussian_unitball"
            ):
                name = f"{field.name}.{inner.name}"
                net.refuse(
                    layer,
                    layer.type,
                    f"{name} gaussian_unitball; nearest: gaussian",
                    layer.line_of(name),
                )
