"""A net of any fork as it was written: its layers, where each stands, and what nobody knows in it.

Layers that no rule touches keep their text, comments and all.
"""

from __future__ import annotations

from google.protobuf import text_format

from caffe_metric.nets import prototxt, upgrade
from caffe_metric.support.errors import UserError
from caffe_metric.zoo import dialect


class Layer:
    """A layer of the net.

    message: its LayerParameter, of all forks' words. line: that it begins in. unknown: (line,
    dotted name) of fields that no fork known here has. now: [message] where that is not what stands
    in the file any more, [] where it is gone, None while it is as it was. done: a rule has put
    another in its place. left: it is for another tree, and stays. rest: the text of its unknown
    fields, for a layer that is written as it was but for the names of its blobs.
    """

    def __init__(self, message, entry, unknown):
        self.message, self.entry, self.unknown = message, entry, unknown
        self.now = None
        self.done = False
        self.rest = []
        self.left = False

    @property
    def line(self) -> int:
        return self.entry.line

    @property
    def type(self) -> str:
        return self.message.type

    @property
    def name(self) -> str:
        return self.message.name

    def beside(self, message) -> Layer:
        """A layer more in the place of this one."""
        layer = Layer(message, self.entry, [])
        layer.now, layer.done = [message], True
        return layer

    def line_of(self, dotted: str) -> int:
        """The line of a field, by its dotted name."""
        found = next(self.entry.all(*dotted.split(".")), None)
        return found.line if found is not None else self.line


class Document:
    """A net file. layers: in the order of the file; inputs: the net's own `input`."""

    def __init__(self, path: str, text: str):
        self.path = path
        try:
            entries = prototxt.parse(text)
            self.upgraded = upgrade.is_old(entries)
            if self.upgraded:
                text = upgrade.upgraded(text, entries)
                entries = prototxt.parse(text)
        except prototxt.SyntaxFault as error:
            raise UserError(f"{path}:{error.line}: {error}") from error
        names = {entry.name for entry in entries}
        if "layer" not in names and names & {"net", "train_net", "base_lr", "max_iter"}:
            raise UserError(
                f"{path}: a solver, which goes on unchanged: give the net that it names"
            )
        self.text = text
        self.inputs = [
            value
            for entry in entries
            if entry.name == "input"
            for value in map(prototxt.unquoted, entry.values)
        ]
        self.layers = [self._layer(entry) for entry in entries if entry.name == "layer"]
        if not self.layers and not self.inputs:
            raise UserError(f"{path}: no layers there")
        known = {field.name for field in dialect.load().plain.DESCRIPTOR.fields}
        self.others = [entry for entry in entries if entry.name not in known]
        self.edits = []  # of the text outside the layers

    def _layer(self, entry) -> Layer:
        if entry.fields is None:
            raise UserError(f"{self.path}:{entry.line}: `layer` without braces")
        message, unknown, cuts = dialect.load().layer(), [], []
        _unknown(entry, message.DESCRIPTOR, "", unknown, cuts)
        begin, end = entry.body
        text = upgrade.edited(self.text[begin:end], [(a - begin, b - begin, "") for a, b in cuts])
        try:
            text_format.Parse(text, message)
        except text_format.ParseError as error:
            line, _, words = str(error).partition(":")
            line = entry.line + int(line) - 1 if line.strip().isdigit() else entry.line
            words = " ".join(words.partition(" : ")[2].split()) or " ".join(str(error).split())
            raise UserError(f"{self.path}:{line}: layer '{entry.text('name')}': {words}") from error
        layer = Layer(message, entry, unknown)
        layer.rest = [self.text[a:b] for (_, name), (a, b) in zip(unknown, cuts) if "." not in name]
        return layer

    def written(self) -> str:
        """The text of the net as it is now."""
        places = {}
        for layer in self.layers:
            places.setdefault(layer.entry.start, []).append(layer)
        edits = list(self.edits)
        for layers in places.values():
            if any(layer.now is not None for layer in layers):
                texts = [shown(message, layer.rest) for layer in layers for message in layer.now]
                edits.append(self._edit(layers[0].entry, texts))
        return upgrade.edited(self.text, edits)

    def _edit(self, entry, texts):
        start, end = entry.start, entry.end
        if texts:
            text = "\n".join(texts)
            return start, end, text.replace("\n", "\r\n") if "\r\n" in self.text else text
        while end < len(self.text) and self.text[end] in " \t\r":
            end += 1
        if self.text[end : end + 1] == "\n":
            end += 1
        return start, end, ""


def shown(message, rest=()) -> str:
    """A layer as text."""
    body = text_format.MessageToString(message, indent=2)
    more = "".join(f"  {text}\n" for text in rest)
    return f"layer {{\n{body}{more}}}"


def _unknown(entry, descriptor, path, unknown, cuts) -> None:
    """Finds the fields of an entry that no schema has."""
    for child in entry.fields:
        name = f"{path}{child.name}"
        field = descriptor.fields_by_name.get(child.name)
        if field is None or (child.fields is not None) != (field.message_type is not None):
            unknown.append((child.line, name))
            cuts.append((child.start, child.end))
        elif field.enum_type is not None and not _is_enum(child, field.enum_type):
            unknown.append((child.line, f"{name}: {' '.join(child.values)}"))
            cuts.append((child.start, child.end))
        elif child.fields is not None:
            _unknown(child, field.message_type, f"{name}.", unknown, cuts)


def _is_enum(child, enum) -> bool:
    return all(
        value in enum.values_by_name
        or (value.lstrip("-").isdigit() and int(value) in enum.values_by_number)
        for value in child.values
    )
