"""ImageData that keeps pairs together (pair_size), or draws identities (label_num, img_num)."""

from __future__ import annotations

import yaml

from caffe_metric.zoo.rules import stock_fields

_DEPRECATED = ("scale", "mean_file", "crop_size", "mirror")


def rewrite(net, layer) -> None:
    """An ImageData with a fork's field."""
    message = layer.message
    given = message.image_data_param
    wanted = [name for name in ("pair_size", "label_num", "img_num") if given.HasField(name)]
    if not wanted:
        return
    if wanted == ["pair_size"] and given.pair_size == 1:
        net.clear(layer, "image_data_param.pair_size")
        net.changed(layer, "ImageData with pair_size 1", "ImageData", "1 is no pair")
        return
    stock_fields.transform(net, layer)
    if net.refused(layer):
        return
    was = f"ImageData with {' and '.join(wanted)}"
    reason, values = _parameters(message, given, wanted)
    if reason:
        net.refuse(layer, was, reason, layer.line_of(f"image_data_param.{wanted[0]}"))
        return
    made = net.new_layer(message.name, "Python", [], message.top, message)
    # Its blob, the number of the batch, is not learned.
    made.param.add(lr_mult=0, decay_mult=0)
    made.python_param.module = "caffe_metric.layers"
    made.python_param.layer = "IdentityDataLayer"
    made.python_param.param_str = yaml.safe_dump(
        values, default_flow_style=None, sort_keys=False, allow_unicode=True, width=1000
    ).strip()
    why = ["reads the same list"]
    if values["layout"] == "LISTED":
        why.append(
            f"rows that stand together there stay together, {values['images']} and "
            f"{values['images']}"
        )
    if given.rand_skip:
        why.append("rand_skip goes: it would shift the pairs")
    net.changed(layer, was, f"IdentityData layout {values['layout']}", "; ".join(why))
    net.replace(layer, [made])


def _parameters(message, given, wanted):
    """("", param_str's values), or (why not, {})."""
    values = {"source": given.source}
    root = given.root_folder
    if root and not root.endswith("/"):
        return f"root_folder '{root}' is no folder: it must end in '/'", {}
    values["root"] = root or "."
    if "pair_size" in wanted:
        if len(wanted) > 1:
            return "pair_size beside label_num or img_num: keep one kind", {}
        if given.pair_size < 1 or given.batch_size % given.pair_size:
            return (
                f"batch_size {given.batch_size} is no multiple of pair_size {given.pair_size}"
            ), {}
        values.update(layout="LISTED", batch_size=given.batch_size, images=given.pair_size)
        if given.shuffle:
            values["shuffle"] = True
    else:
        if set(wanted) != {"label_num", "img_num"}:
            return "label_num and img_num belong together: one is missing", {}
        rows = given.label_num * given.img_num
        if not rows or (given.HasField("batch_size") and given.batch_size not in (1, rows)):
            return (
                f"batch_size {given.batch_size} is not label_num {given.label_num} times "
                f"img_num {given.img_num}"
            ), {}
        values.update(layout="PK", identities=given.label_num, images=given.img_num)
    if given.new_width or given.new_height:
        values.update(width=given.new_width, height=given.new_height)
    if not given.is_color:
        values["gray"] = True
    return "", {**values, **_transform(message, given)}


def _transform(message, given) -> dict:
    values = {}
    for source in (given, message.transform_param):
        for name in _DEPRECATED:
            if source.HasField(name):
                values[name] = getattr(source, name)
    if "scale" in values:
        values["scale"] = float(f"{values['scale']:.9g}")
    means = [float(f"{mean:.9g}") for mean in message.transform_param.mean_value]
    if means:
        values["mean_value"] = means if len(means) > 1 else means[0]
    if message.transform_param.force_gray:
        values["gray"] = True
    return values
