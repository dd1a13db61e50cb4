"""What the Python layers take of Caffe: its layer, its log, its fillers, its random numbers."""

from __future__ import annotations

import sys
from functools import cached_property

import numpy as np

import caffe
from caffe_metric.layers import generator
from caffe_metric.layers.base import check_rows
from caffe_metric.nets import param_str
from caffe_metric.rules import backend
from caffe_metric.support.errors import UserError


class CaffeHost(caffe.Layer):
    """A layer that Caffe calls; mixed into a MetricLayer.

    `caffe train` loses the text of an exception, so an error is printed before it is raised.
    """

    def setup(self, bottom, top):
        self._guarded(self._setup, bottom, top)

    def reshape(self, bottom, top):
        self._guarded(self._reshape, bottom, top)

    def forward(self, bottom, top):
        self._guarded(self.compute, bottom, top)

    def backward(self, top, propagate_down, bottom):
        self._guarded(self.propagate, top, propagate_down, bottom)

    @cached_property
    def key_source(self):
        """Called once a forward pass for the key of its random draws."""
        return generator.KeySource()

    @staticmethod
    def fill(array: np.ndarray, filler: dict | None, what: str) -> None:
        """Fills a new weight, by the fields of a FillerParameter; `what` it is called."""
        generator.fill(array, generator.parse_filler(filler or {}, what))

    @staticmethod
    def log(message: str) -> None:
        """A line of Caffe's log."""
        caffe.log(message)

    def _setup(self, bottom, top):
        self.accept(param_str.parse(self.param_str))
        check_rows(bottom)
        self.configure(bottom, top)
        if self.HAS_RULES:
            self.log(f"{self.title}: {backend.describe(self.rules)}")

    def _reshape(self, bottom, top):
        check_rows(bottom)
        self.shape(bottom, top)

    def _guarded(self, method, *arguments):
        try:
            method(*arguments)
        except Exception as error:
            message = f"{self.title}: {error}"
            print(message, file=sys.stderr, flush=True)
            if isinstance(error, (ValueError, UserError)):
                raise ValueError(message) from None
            raise
