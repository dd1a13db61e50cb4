"""The layers of caffe-metric as Python layers, for a Caffe that is not rebuilt.

    layer {
      name: "loss" type: "Python" bottom: "embedding" bottom: "label" top: "loss" loss_weight: 1
      python_param {
        module: "caffe_metric.layers" layer: "TripletLossLayer" param_str: "margin: 0.2"
      }
    }

param_str is YAML with the field names of proto/caffe_metric.proto. Every layer takes three more:

    normalization  FULL, VALID, BATCH_SIZE or NONE, of a loss layer; replaces its own normaliser
    backend        core or numpy: where the row rules are computed
    name           how messages name the layer (Caffe does not tell a Python layer its name)

A Python layer has no default loss_weight: a prototxt lists one for each top.

The layers' modules need no Caffe, and serve arrays as well (losses/on_arrays.py). A class that is
taken from here by name stands on Caffe's own layer.
"""

from __future__ import annotations

import importlib
import types

from caffe_metric import suite
from caffe_metric.support import extras

_STEMS = {layer.python_class: layer.stem for layer in suite.LAYERS}

__all__ = sorted(_STEMS)


def without_caffe(name: str) -> type:
    """The class `name`, such as "TripletLossLayer", without a host."""
    try:
        return getattr(importlib.import_module(f"{__name__}.{_STEMS[name]}"), name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{name} {extras.advice(error)}", name=error.name) from error


def __getattr__(name: str) -> type:
    if name not in _STEMS:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from caffe_metric.layers.caffe_host import CaffeHost

    plain = without_caffe(name)
    body = {"__doc__": plain.__doc__, "__module__": __name__}
    made = types.new_class(name, (plain, CaffeHost), exec_body=lambda space: space.update(body))
    globals()[name] = made
    return made
