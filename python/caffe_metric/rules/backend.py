"""Which implementation of the row rules is used: `caffe_metric._core` (C++) or NumPy.

Without a choice it is `core` where the extension is installed, else `numpy`. The environment
variable CAFFE_METRIC_BACKEND chooses for a process, the parameter `backend` for a layer.
"""

from __future__ import annotations

import importlib
import os

NAMES = ("core", "numpy")
_MODULES = {"core": "caffe_metric.rules.compiled", "numpy": "caffe_metric.rules.reference"}


def load(name: str | None = None):
    """The module of rules of that name; the best there is where the name is None.

    Raises ValueError for an unknown name, ImportError where `core` is asked for and missing.
    """
    chosen = name or os.environ.get("CAFFE_METRIC_BACKEND")
    if chosen:
        if chosen not in NAMES:
            raise ValueError(f"backend is '{chosen}', must be one of {', '.join(NAMES)}")
        return importlib.import_module(_MODULES[chosen])
    try:
        return importlib.import_module(_MODULES["core"])
    except ImportError:
        return importlib.import_module(_MODULES["numpy"])


def describe(module) -> str:
    """What a log line says about a backend."""
    if module.__name__ == _MODULES["core"]:
        return "row rules by caffe_metric._core"
    return "row rules by NumPy (caffe_metric._core is not in use)"
