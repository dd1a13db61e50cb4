"""Metric-learning layers for Caffe 1.0, and the tools around them.

    import caffe_metric as cm

    loss = cm.TripletLoss(margin=0.2, mining="SEMIHARD")    # each loss of the suite, on arrays
    value, gradient = loss(x, labels, seed=1)
    report = cm.evaluate(x, labels)                         # verification, retrieval, clustering
    faces = cm.Embedder("deploy.prototxt", "deploy.caffemodel")(images)
    cm.gradcheck("net.prototxt")
    n.loss = cm.spec.TripletLoss(n.embedding, n.label, margin=0.2)    # for caffe.NetSpec

Nothing is imported before it is asked for.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_FACE = {
    "Embedder": ("caffe_metric.deployment.embedder", "Embedder"),
    "evaluate": ("caffe_metric.evaluation.report", "evaluate"),
    "gradcheck": ("caffe_metric.gradients.check", "gradcheck"),
    "spec": ("caffe_metric.nets.spec", None),
}


def __getattr__(name):
    if name in _FACE:
        module, attribute = _FACE[name]
        found = importlib.import_module(module)
        found = getattr(found, attribute) if attribute else found
    elif name in _layers():
        from caffe_metric.losses.on_arrays import array_layer

        found = array_layer(name)
    else:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    globals()[name] = found
    return found


def __dir__():
    return sorted({*globals(), *_FACE, *_layers()})


def _layers():
    # Not `from caffe_metric import suite`, which asks __getattr__ first.
    suite = importlib.import_module("caffe_metric.suite")
    return [layer.type for layer in suite.LAYERS if layer.field]
