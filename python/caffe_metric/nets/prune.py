"""Parts of a net: the layers of a phase, and those that a blob comes from."""

from __future__ import annotations

from caffe_metric.nets import phases


def layers_of_phase(net, state):
    """The layers of a phase, or of a phases.State, copied, their rules taken away."""
    kept = []
    for layer in net.layer:
        if phases.included(layer, state):
            copy = type(layer)()
            copy.CopyFrom(layer)
            del copy.include[:], copy.exclude[:]
            kept.append(copy)
    return kept


def making(net, blob):
    """The layers of phase TEST that a blob comes from, in their order; [] where it is not there.

    Where phase TEST has no data, as in a net for training alone, its stages are tried, then TRAIN.
    """
    states = sorted(phases.states(net.layer), key=lambda state: state.phase == phases.TRAIN)
    best = []
    for state in states:
        kept = ancestors(layers_of_phase(net, state), [blob])
        made = {*net.input, *(top for layer in kept for top in layer.top)}
        if kept and all(bottom in made for layer in kept for bottom in layer.bottom):
            return kept
        best = best or kept
    return best


def ancestors(layers, blobs):
    """The layers that some blobs come from, in their order; in-place layers count."""
    needed, kept = set(blobs), []
    for layer in reversed(layers):
        if needed.intersection(layer.top):
            kept.append(layer)
            needed.update(layer.bottom)
    return kept[::-1]
