"""What a rule works with: a document, what is read where, and the report."""

from __future__ import annotations

from caffe_metric.zoo.document import Layer
from caffe_metric.zoo.graph import Graph
from caffe_metric.zoo.report import CHANGED, REFUSED, STAYS, Line

# Layers that give the same for logits as for the same logits times a positive number of the row.
ORDER_ONLY = ("Accuracy", "ArgMax", "Silence")


class Net:
    """A document while it is rewritten.

    models: {layer: its blobs} of the weights that come along, {} without any. weights: {layer of
    the new net: (layer of the old one, function of its blobs)}, where they change.
    """

    def __init__(self, document, models=None):
        self.document = document
        self.models = models or {}
        self.weights = {}
        self.lines = []
        self._refused = set()
        self._graph = None

    @property
    def layers(self) -> list[Layer]:
        return [layer for layer in self.document.layers if layer.now != []]

    @property
    def graph(self) -> Graph:
        if self._graph is None:
            self._graph = Graph(self.document.layers, self.document.inputs)
        return self._graph

    def new_layer(self, name: str, type_name: str, bottoms, tops, like=None):
        """A LayerParameter; with the rules (include, exclude) of another, and its propagate_down
        where it has as many bottoms."""
        made = type(self.document.layers[0].message)(name=name, type=type_name)
        made.bottom.extend(bottoms)
        made.top.extend(tops)
        if like is not None:
            made.include.extend(like.include)
            made.exclude.extend(like.exclude)
            if len(like.propagate_down) == len(made.bottom):
                made.propagate_down.extend(like.propagate_down)
        return made

    def free_name(self, wanted: str) -> str:
        """A name that no layer and no blob has."""
        taken = set()
        for layer in self.document.layers:
            for message in [layer.message, *(layer.now or [])]:
                taken.update([message.name, *message.bottom, *message.top])
        name, number = wanted, 1
        while name in taken:
            number += 1
            name = f"{wanted}_{number}"
        return name

    def replace(self, layer, messages) -> None:
        """Puts layers in the place of one, none to take it out."""
        layer.done, layer.rest = True, []
        layer.now = list(messages[:1])
        if messages:
            layer.message = messages[0]
        place = self.document.layers.index(layer) + 1
        self.document.layers[place:place] = [layer.beside(message) for message in messages[1:]]
        self._graph = None

    def touch(self, layer) -> None:
        """The layer's own message has been changed."""
        if layer.now is None:
            layer.now = [layer.message]
        self._graph = None

    def rename_bottom(self, layer, place: int, name: str) -> None:
        layer.message.bottom[place] = name
        self.touch(layer)

    def rename_source(self, layer, name: str) -> bool:
        """Gives the blob that an in-place layer reads another name, for all that make and read it.

        Its top keeps its name. False, and nothing is done, where that blob is not the same layers'
        in all nets.
        """
        old = layer.message.bottom[0]
        makers, todo = {}, [(layer, 0)]
        readers = {(id(layer), 0): layer}
        while todo:
            reader, place = todo.pop()
            for one in self.graph.having(reader):
                maker = one.makers[id(reader)][place]
                if maker is None:
                    return False
                if id(maker) in makers:
                    continue
                makers[id(maker)] = maker
                top = list(maker.message.top).index(old)
                for other, bottom in self.graph.readers(maker, top):
                    if (id(other), bottom) not in readers:
                        readers[id(other), bottom] = other
                        todo.append((other, bottom))
                if old in maker.message.bottom:
                    todo.append((maker, list(maker.message.bottom).index(old)))
        if id(layer) in makers:
            return False
        for maker in makers.values():
            maker.message.top[list(maker.message.top).index(old)] = name
            self.touch(maker)
        for (_, bottom), reader in readers.items():
            self.rename_bottom(reader, bottom, name)
        return True

    # --- The report ---------------------------------------------------------------------------

    def changed(self, layer, was: str, now: str, why: str = "", line: int | None = None) -> None:
        self._line(layer, was, now, why, CHANGED, line)

    def stays(self, layer, was: str, why: str = "") -> None:
        self._line(layer, was, "as it is", why, STAYS)

    def refuse(self, layer, was: str, why: str, line: int | None = None) -> None:
        self._line(layer, was, "cannot be rewritten", why, REFUSED, line)
        self._refused.add(id(layer))

    def _line(self, layer, was, now, why, verdict, line=None) -> None:
        line = line or (layer.line if layer is not None else 1)
        found = Line(line, layer.name if layer is not None else "", was, now, why, verdict)
        if found not in self.lines:
            self.lines.append(found)

    def refused(self, layer) -> bool:
        """Whether the layer is named already as one that cannot be rewritten."""
        return id(layer) in self._refused

    # --- Small edits --------------------------------------------------------------------------

    def clear(self, layer, dotted: str) -> None:
        """Takes a field out of a layer."""
        message = layer.message
        *parents, last = dotted.split(".")
        for name in parents:
            message = getattr(message, name)
        message.ClearField(last)
        if parents and not message.ListFields():
            layer.message.ClearField(parents[0])
        self.touch(layer)

    def reader_of(self, layer, first: int) -> str:
        """The name of a layer, Silence apart, that reads a top from a number on; "" without one."""
        return next(
            (
                reader.name
                for reader, _ in self._readers_of(layer, first)
                if reader.type != "Silence"
            ),
            "",
        )

    def _readers_of(self, layer, first):
        return [
            found
            for top in range(first, len(layer.message.top))
            for found in self.graph.readers(layer, top)
        ]

    def drop_tops(self, layer, first: int) -> None:
        """Takes out the tops from a number on, which Silence alone may read."""
        message = layer.message
        gone = set(message.top[first:])
        readers = {id(reader): reader for reader, _ in self._readers_of(layer, first)}
        for reader in readers.values():
            kept = [bottom for bottom in reader.message.bottom if bottom not in gone]
            if kept:
                del reader.message.bottom[:]
                reader.message.bottom.extend(kept)
                self.touch(reader)
            else:
                self.replace(reader, [])
            self.changed(
                reader,
                "Silence",
                "without the tops that are gone" if kept else "gone",
                f"silenced a further top of layer '{layer.name}'",
            )
        del message.top[first:]
        if len(message.loss_weight) > max(1, first):
            del message.loss_weight[max(1, first) :]
        self.touch(layer)
