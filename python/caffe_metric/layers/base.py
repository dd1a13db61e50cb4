"""What the Python layers have in common: parameters and checks of input."""

from __future__ import annotations

import numpy as np

from caffe_metric import suite
from caffe_metric.data.lists import LABEL_LIMIT
from caffe_metric.nets import schema
from caffe_metric.rules import backend

COMMON = ("name", "backend", "normalization")
ANY_CLASS = 2**31 - 1
TRAIN, TEST = 0, 1  # Caffe's numbers of the phases


class MetricLayer:
    """A layer with parameters from a message of the schema.

    A subclass defines MESSAGE and the four methods below that raise NotImplementedError. A host
    is mixed in, which calls them: layers/caffe_host.py for Caffe, losses/on_arrays.py for arrays.
    It has

        phase, blobs                 as Caffe's own layer has them
        key_source()                 the key of a forward pass's random draws
        fill(array, filler, what)    fills a new weight, by the fields of a FillerParameter
        log(message)                 a line of the log
    """

    MESSAGE = ""
    HAS_RULES = True  # whether a log line says where the row rules are computed

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

    @property
    def title(self) -> str:
        """How messages begin."""
        kind = type(self).__name__
        return f"{kind} '{self.name}'" if getattr(self, "name", None) else kind

    def parse(self, values: dict):
        """The parameters, as attributes. A subclass may take names out of `values` first."""
        return schema.of_layer(suite.of_message(self.MESSAGE)).parse(values)

    def check_positive(self) -> None:
        """Raises ValueError for a parameter that must be > 0 and is not."""
        for name in suite.of_message(self.MESSAGE).positive:
            value = getattr(self.parameters, name)
            if not value > 0:
                raise ValueError(f"{name} is {value:g}, must be > 0")

    def add_blobs(self, *shapes: tuple[int, ...]) -> bool:
        """Makes the layer's blobs. False where they came with the layer, in the net's file.

        Raises ValueError where those are not as many, or of other shapes.
        """
        if not len(self.blobs):
            for shape in shapes:
                self.blobs.add_blob(*shape)
            return True
        found = [tuple(blob.shape) for blob in self.blobs]
        if len(found) != len(shapes):
            raise ValueError(f"has {len(found)} blobs in its parameters, needs {len(shapes)}")
        for i, (has, needs) in enumerate(zip(found, shapes)):
            # Models of 2014 have four axes: leading ones say nothing.
            if (1,) * (len(has) - len(needs)) + needs != has:
                raise ValueError(f"blob {i} has shape {list(has)}, needs {list(needs)}")
            self.blobs[i].reshape(*needs)
        return False

    def draw_key(self) -> int:
        """The key of a forward pass's random draws; 0 in TEST.

        A TEST net that took numbers of Caffe's generator would change the training around it.
        """
        return self.key_source() if self.phase == TRAIN else 0

    def accept(self, values: dict) -> None:
        """Takes the parameters, by name. Raises ValueError."""
        values = dict(values)
        own = {key: values.pop(key, None) for key in COMMON}
        self.name = own["name"]
        self.normalization = own["normalization"]
        if self.normalization not in (None, *schema.NORMALIZATIONS):
            known = ", ".join(schema.NORMALIZATIONS)
            raise ValueError(f"normalization is {self.normalization!r}, must be one of {known}")
        self.rules = backend.load(own["backend"])
        self.parameters = self.parse(values)


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
        for i, number in zip(range(len(top)), numbers):
            top[i].data[...] = number


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


def check_labels(labels: np.ndarray, classes: int = ANY_CLASS) -> None:
    """Raises ValueError that names the first row whose label is no integer in [0, classes).

    In float32 a label must be below 2^24, too, where floats tell all integers apart.
    """
    limit = LABEL_LIMIT if labels.dtype == np.float32 else ANY_CLASS
    with np.errstate(invalid="ignore"):
        good = (labels >= 0) & (labels < min(classes, limit)) & (labels == np.floor(labels))
    if good.all():
        return
    row = int(np.argmin(good))
    label = labels[row]
    if label >= limit and (label < classes or classes == ANY_CLASS):
        exact = f"Caffe's {8 * labels.itemsize}-bit labels are exact below {limit} only"
        why = f"and {exact}: number the classes from 0"
    elif classes == ANY_CLASS:
        why = "labels are integers >= 0"
    else:
        why = f"labels are integers in [0, {classes})"
    raise ValueError(f"the label of row {row} is {float(label):.17g}, {why}")


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
