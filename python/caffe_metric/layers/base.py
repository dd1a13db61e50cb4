"""What the Python layers have in common: parameters, errors that can be read, checks of input."""

from __future__ import annotations

import sys
from functools import cached_property

import numpy as np

import caffe
from caffe_metric.layers import param_str
from caffe_metric.layers.generator import KeySource
from caffe_metric.nets import schema
from caffe_metric.rules import backend
from caffe_metric.support.errors import UserError

COMMON = ("name", "backend", "normalization")


class MetricLayer(caffe.Layer):
    """A layer with parameters from a message of the schema.

    `caffe train` loses the text of an exception, so an error is printed before it is raised.
    A subclass defines MESSAGE and the four methods below that raise NotImplementedError.
    """

    MESSAGE = ""
    HAS_RULES = True  # whether a log line says where the row rules are computed

    def setup(self, bottom, top):
        self._guarded(self._setup, bottom, top)

    def reshape(self, bottom, top):
        self._guarded(self._reshape, bottom, top)

    def forward(self, bottom, top):
        self._guarded(self.compute, bottom, top)

    def backward(self, top, propagate_down, bottom):
        self._guarded(self.propagate, top, propagate_down, bottom)

    def configure(self, bottom, top) -> None:
        """Checks parameters and the counts of bottoms and tops, makes blobs. Once."""
        raise NotImplementedError

    def shape(self, bottom, top) -> None:
        """Checks shapes and gives the tops theirs."""
        raise NotImplementedError

    def compute(self, bottom, top) -> None:
        """The forward pass."""
        raise NotImplementedError

    def propagate(self, top, propagate_down, bottom) -> None:
        """The backward pass."""
        raise NotImplementedError

    @cached_property
    def key_source(self):
        """Called once a forward pass for the key of its random draws."""
        return KeySource()

    @property
    def title(self) -> str:
        """How messages begin."""
        kind = type(self).__name__
        return f"{kind} '{self.name}'" if getattr(self, "name", None) else kind

    def parse(self, values: dict):
        """The parameters, as attributes. A subclass may take names out of `values` first."""
        return schema.message(self.MESSAGE).parse(values)

    def _setup(self, bottom, top):
        values = param_str.parse(self.param_str)
        own = {key: values.pop(key, None) for key in COMMON}
        self.name = own["name"]
        self.normalization = own["normalization"]
        if self.normalization not in (None, *schema.NORMALIZATIONS):
            known = ", ".join(schema.NORMALIZATIONS)
            raise ValueError(f"normalization is {self.normalization!r}, must be one of {known}")
        check_rows(bottom)
        self.rules = backend.load(own["backend"])
        self.parameters = self.parse(values)
        self.configure(bottom, top)
        if self.HAS_RULES:
            log(f"{self.title}: {backend.describe(self.rules)}")

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


class MetricLossLayer(MetricLayer):
    """A loss: all tops are scalars, the first is the loss, the further ones only report."""

    MOST_TOPS = 1

    _weights_are_checked = False

    def shape(self, bottom, top):
        count = len(top)
        if not 1 <= count <= self.MOST_TOPS:
            raise ValueError(f"has {count} tops, must have 1 to {self.MOST_TOPS}")
        for i in range(count):
            top[i].reshape()

    def report(self, top, numbers) -> None:
        """Writes the tops."""
        if not self._weights_are_checked:
            # Before the first backward pass a top's diff is its loss_weight.
            for i in range(1, len(top)):
                if top[i].diff != 0:
                    raise ValueError(f"top {i} only reports, its loss_weight must be 0")
            self._weights_are_checked = True
        for i, number in zip(range(len(top)), numbers, strict=False):
            top[i].data[...] = number


def log(message: str) -> None:
    """A line of Caffe's log."""
    caffe.log(message)


def rows_of(blob) -> np.ndarray:
    """A blob's data as N x D."""
    return as_rows(blob.data)


def as_rows(array: np.ndarray) -> np.ndarray:
    if array.ndim == 0:
        raise ValueError("a bottom is a scalar, must have rows")
    return array.reshape(len(array), -1) if len(array) else array.reshape(0, 1)


def check_rows(bottom) -> None:
    """Raises ValueError for an empty bottom, whose data Caffe would abort on."""
    for i in range(len(bottom)):
        if bottom[i].count == 0:
            raise ValueError(f"bottom {i} must have rows, its shape is {list(bottom[i].shape)}")


def check_finite(rows: np.ndarray, what: str) -> None:
    """Raises ValueError that names the first row that holds NaN or Inf."""
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(rows.sum()):  # a sum is fast, and finite where no row is bad
            return
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise ValueError(f"row {bad[0]} of the {what} holds NaN or Inf")


def check_labels(labels: np.ndarray, classes: int = 2**31 - 1) -> None:
    """Raises ValueError that names the first row whose label is no integer in [0, classes)."""
    with np.errstate(invalid="ignore"):
        good = (labels >= 0) & (labels < classes) & (labels == np.floor(labels))
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        want = "integers >= 0" if classes == 2**31 - 1 else f"integers >= 0 and < {classes}"
        raise ValueError(f"the label of row {row} is {labels[row]:g}, labels are {want}")


def label_column(blob, rows: int) -> np.ndarray:
    """One label a row, as a vector."""
    labels = blob.data.reshape(-1)
    if len(labels) != rows:
        raise ValueError(f"needs one label a row, has {rows} rows and {len(labels)} labels")
    return labels


def zero_others(propagate_down, bottom, first: int = 1) -> None:
    """Label and weight bottoms get a zero gradient if they are asked for one."""
    for i in range(first, len(bottom)):
        if propagate_down[i]:
            bottom[i].diff[...] = 0
