"""Nets of 2013 and 2014 (`layers`, with types as enums) in today's words, as Caffe upgrades them.

The text is changed in place, line by line, so that what is said of a line of the result is true of
the line that the user wrote. See Caffe's src/caffe/util/upgrade_proto.cpp.
"""

from __future__ import annotations

from caffe_metric.nets import prototxt

# The types whose name today is not the enum's in camel case.
_TYPES = {
    "ABSVAL": "AbsVal",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "IM2COL": "Im2col",
    "LRN": "LRN",
    "MVN": "MVN",
    "PRELU": "PReLU",
    "RELU": "ReLU",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "TANH": "TanH",
}
_SHARE_MODES = {"0": "STRICT", "1": "PERMISSIVE"}
_TRANSFORM = ("scale", "mean_file", "crop_size", "mirror")
_READERS = ("data_param", "image_data_param", "window_data_param")


def is_old(entries) -> bool:
    """Whether the fields of a net are those of an old one."""
    return any(entry.name == "layers" for entry in entries)


def upgraded(text: str, entries=None) -> str:
    """The text of a net, `layers` turned into `layer`; any other text as it is.

    Raises prototxt.SyntaxFault for a net that Caffe itself would not upgrade, or that is older
    still (`layers { layer { } }`).
    """
    entries = prototxt.parse(text) if entries is None else entries
    old = [entry for entry in entries if entry.name == "layers"]
    if not old:
        return text
    new = [entry for entry in entries if entry.name == "layer"]
    if new:
        raise prototxt.SyntaxFault(new[0].line, "has both `layers` and `layer`: one kind only")
    edits = [edit for entry in old for edit in _layer(text, entry)]
    return edited(text, edits)


def edited(text: str, edits) -> str:
    """The text with each (start, end, replacement) carried out."""
    out, done = [], 0
    for start, end, replacement in sorted(edits):
        out += [text[done:start], replacement]
        done = end
    return "".join([*out, text[done:]])


def layer_type(word: str) -> str:
    """The type of a layer today, by its old enum: "INNER_PRODUCT" is "InnerProduct"."""
    return _TYPES.get(word) or "".join(part.capitalize() for part in word.split("_"))


def _layer(text, entry):
    if any(True for _ in entry.all("layer")):
        raise prototxt.SyntaxFault(
            entry.line,
            "a net of 2013 (`layers { layer { } }`): run Caffe's upgrade_net_proto_text first",
        )
    yield entry.start, entry.start + len("layers"), "layer"
    specs = {}
    fields = {}
    for child in entry.fields or ():
        if child.name == "type" and child.values[0][:1] not in ("'", '"'):
            yield child.start, child.end, f'type: "{layer_type(child.values[0])}"'
        if child.name in ("blobs_lr", "weight_decay", "param", "blob_share_mode"):
            fields.setdefault(child.name, []).append(child)
    words = {"blobs_lr": "lr_mult", "weight_decay": "decay_mult", "param": "name"}
    for name, found in fields.items():
        place = 0
        for child in found:
            for value in child.values:
                word = words.get(name, "share_mode")
                specs.setdefault(place, []).append(
                    f"{word}: {_SHARE_MODES.get(value, value)}"
                    if word == "share_mode"
                    else f"{word}: {value}"
                )
                place += 1
    rest = "".join(f"param {{ {' '.join(specs[place])} }} " for place in sorted(specs))
    for child in sorted((one for found in fields.values() for one in found), key=lambda c: c.start):
        yield child.start, child.end, rest.rstrip()
        rest = ""
    yield from _transform(text, entry)


def _transform(text, entry):
    """What stood in a data layer's own parameters stands in transform_param today."""
    moved = []
    for name in _READERS:
        for child in entry.all(name):
            for part in child.fields:
                if part.name in _TRANSFORM:
                    moved.append(text[part.start : part.end])
                    yield part.start, part.end, ""
    if not moved:
        return
    own = next(entry.all("transform_param"), None)
    if own is not None:
        yield own.body[1], own.body[1], " " + " ".join(moved) + " "
    else:
        yield entry.body[1], entry.body[1], f" transform_param {{ {' '.join(moved)} }} "
