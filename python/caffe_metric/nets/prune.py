"""Parts of a net: the layers of a phase, and those that a blob comes from."""

from __future__ import annotations

from caffe_metric.nets.isolate import included


def layers_of_phase(net, phase):
    """The layers of a phase, copied, their rules taken away."""
    kept = []
    for layer in net.layer:
        if included(layer, phase):
            copy = type(layer)()
            copy.CopyFrom(layer)
            del copy.include[:], copy.exclude[:]
            kept.append(copy)
    return kept


def ancestors(layers, blobs):
    """The layers that some blobs come from, in their order; in-place layers count."""
    needed, kept = set(blobs), []
    for layer in reversed(layers):
        if needed.intersection(layer.top):
            kept.append(layer)
            needed.update(layer.bottom)
    return kept[::-1]
