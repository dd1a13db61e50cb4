"""Parts of a net: the layers of a phase, and those that a blob comes from."""


def in_phase(layer, phase):
    """Whether Caffe keeps a layer in a phase (0 TRAIN, 1 TEST) without stages, at level 0."""
    if layer.include:
        return any(_meets(rule, phase) for rule in layer.include)
    return not any(_meets(rule, phase) for rule in layer.exclude)


def _meets(rule, phase):
    if rule.HasField("phase") and rule.phase != phase:
        return False
    if rule.HasField("min_level") and rule.min_level > 0:
        return False
    if rule.HasField("max_level") and rule.max_level < 0:
        return False
    return not rule.stage


def layers_of_phase(net, phase):
    """The layers of a phase, copied, their rules taken away."""
    kept = []
    for layer in net.layer:
        if in_phase(layer, phase):
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
