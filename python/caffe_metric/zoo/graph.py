"""Who reads what, in every net that a net file stands for."""

from __future__ import annotations

from caffe_metric.nets import phases


class Graph:
    """The layers of a document that are still there, by state.

    States in which a bottom has no maker are no nets that anyone runs, and are left out, as long
    as there is another.
    """

    def __init__(self, layers, inputs):
        alive = [layer for layer in layers if layer.now != []]
        seen = {}
        for state in phases.states([layer.message for layer in alive]):
            present = [layer for layer in alive if phases.included(layer.message, state)]
            seen.setdefault((state.phase, tuple(map(id, present))), (state, present))
        nets = [_Net(state, present, inputs) for state, present in seen.values() if present]
        self.nets = [net for net in nets if net.whole] or nets

    def having(self, layer) -> list[_Net]:
        """The nets that have a layer."""
        return [net for net in self.nets if id(layer) in net.makers]

    def makers(self, layer, place: int) -> list:
        """The layers that make a bottom, each in some net; [] where it is an input of a net."""
        made = [net.makers[id(layer)][place] for net in self.having(layer)]
        found = {id(maker): maker for maker in made}
        return [] if None in made else list(found.values())

    def maker(self, layer, place: int):
        """The layer that makes a bottom, the same in every net; None where there is not one."""
        found = self.makers(layer, place)
        return found[0] if len(found) == 1 else None

    def readers(self, layer, place: int = 0) -> list:
        """(reader, number of its bottom) of a top, in any net."""
        found = {}
        for net in self.having(layer):
            for reader, bottom in net.readers(layer, place):
                found[id(reader), bottom] = reader, bottom
        return list(found.values())


class _Net:
    """One net. makers: {id(layer): the maker of each bottom, None for an input of the net}."""

    def __init__(self, state, present, inputs):
        self.state = state
        self.layers = present
        self.makers = {}
        self.whole = True
        self._readers = {}
        last = dict.fromkeys(inputs, (None, 0))
        self._last_before = {}
        for layer in present:
            made = []
            for place, name in enumerate(layer.message.bottom):
                self.whole &= name in last
                maker, top = last.get(name, (None, 0))
                made.append(maker)
                if maker is not None:
                    self._readers.setdefault((id(maker), top), []).append((layer, place))
            self.makers[id(layer)] = made
            self._last_before[id(layer)] = dict(last)
            for place, name in enumerate(layer.message.top):
                last[name] = layer, place

    @property
    def train(self) -> bool:
        return self.state.phase == phases.TRAIN

    def readers(self, layer, place: int = 0):
        return self._readers.get((id(layer), place), [])

    def maker_before(self, layer, blob: str):
        """(layer, top) that has made a blob when a layer runs; None where none has."""
        return self._last_before[id(layer)].get(blob)

    def blobs_before(self, layer):
        """The blobs that are there when a layer runs."""
        return self._last_before[id(layer)]
