"""An older name of `caffe_metric.layers.IdentityDataLayer`, with its settings in `config`."""

from __future__ import annotations

import contextlib
import importlib

from caffe_metric.layers import IdentityDataLayer


class DataLayer(IdentityDataLayer):
    """Images and labels of a list with lines `person@file label`.

    With config.TRIPLET_LOSS a batch is a third anchors, a third positives and a third negatives,
    the first two of one person, as `tripletselectlayer` takes them; else shuffled images. param_str
    takes the parameters of IdentityDataLayer, which win over `config`. What `config`, a file of
    the user's, leaves out has a default; without that file everything has.
    """

    def parse(self, values):
        return super().parse({**self._settings(values), **values})

    @staticmethod
    def _settings(values):
        config = None
        with contextlib.suppress(ModuleNotFoundError):
            config = importlib.import_module("config")
        settings = {
            "source": getattr(config, "IMAGE_LIST", "train.txt"),
            "root": getattr(config, "IMAGEPATH", ""),
            "batch_size": getattr(config, "BATCH_SIZE", 30),
            "layout": "THIRDS" if getattr(config, "TRIPLET_LOSS", True) else "SHUFFLED",
            "mirror": bool(getattr(config, "FLIPPED", True)),
            "workers": getattr(config, "WORKERS", 2),
            "persist_iteration": False,  # models of the older layer have no blob of it
        }
        size = getattr(config, "IMAGE_SIZE", 224)
        if "width" not in values and "height" not in values:
            settings["width"] = settings["height"] = size
        if "mean_value" not in values and "mean_file" not in values:
            means = getattr(config, "PIXEL_MEANS", (102.9801, 115.9465, 122.7717))
            settings["mean_value"] = [float(mean) for mean in _flat(means)]
        return settings


def _flat(means):
    """Three numbers, of a tuple or an array of any shape."""
    return means.ravel() if hasattr(means, "ravel") else means
