"""The layers as functions of NumPy arrays: a value, and its gradient by every array of features.

    loss = TripletLoss(margin=0.2, mining="SEMIHARD")
    value, gradient = loss(x, labels, seed=1)

Every layer of suite.py that has parameters of its own has one. No Caffe is needed.
"""

from __future__ import annotations

import functools
import inspect

import numpy as np

from caffe_metric import layers, suite
from caffe_metric.layers.base import TRAIN, check_rows
from caffe_metric.nets import schema


class Array:
    """What a layer asks of a blob: data, diff, shape, count, reshape."""

    def __init__(self, data: np.ndarray):
        self.data = data
        self.diff = np.zeros_like(data)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def count(self) -> int:
        return self.data.size

    def reshape(self, *shape) -> None:
        if shape != self.data.shape:
            self.__init__(np.zeros(shape, self.data.dtype))


class Blobs(list):
    """The weights of a layer."""

    def __init__(self, dtype):
        super().__init__()
        self.dtype = dtype

    def add_blob(self, *shape) -> None:
        self.append(Array(np.zeros(shape, self.dtype)))


class ArrayHost:
    """What a layer asks of whoever made it; mixed into a MetricLayer."""

    phase = TRAIN

    def __init__(self, dtype=np.float32, seed: int = 0):
        self.blobs = Blobs(dtype)
        self._seed = seed

    def key_source(self) -> int:
        """The key of the random draws."""
        return self._seed

    def fill(self, array, filler, what: str) -> None:
        """Weights are given."""

    def log(self, message: str) -> None:
        """Nothing is logged."""


class ArrayLayer:
    """A layer to call on arrays. Parameters are those of its message in proto/caffe_metric.proto.

    normalization: FULL, VALID, BATCH_SIZE or NONE, of a loss. backend: core or numpy. Raises
    ValueError for an unknown name, with the nearest known one, and for a value out of its range.
    """

    LAYER: suite.Layer

    def __init__(self, **parameters):
        self.parameters = parameters
        self._titled(lambda: self._host()().accept(parameters))

    def __call__(self, *arrays, seed: int = 0, weights=None, top_diff=None):
        """The value in phase TRAIN, and the gradient by each array of features.

        arrays    the layer's bottoms: features N x D (x ...), labels N (integers), weights N
        seed      the key of the random draws, 0 to 2^64 - 1: the same key draws the same rows
        weights   of a layer that has some: an array, or a sequence of them; left as they are.
                  A layer that scales its rows to length 1 has the gradient at those rows
        top_diff  what the gradient is multiplied by; of a value that is an array, one of its shape.
                  Without it: 1

        A loss is a float; another value an array. The gradient is an array of the features' shape
        and type, or, where there are several, or weights, a tuple: features first. float32 is
        computed in float32, all else in float64. Raises ValueError.
        """
        return self._titled(lambda: self._call(arrays, seed, weights, top_diff))

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.parameters.items())
        return f"{self.LAYER.type}({given})"

    @classmethod
    @functools.lru_cache(maxsize=None)
    def _host(cls) -> type:
        plain = layers.without_caffe(cls.LAYER.python_class)
        return type(cls.LAYER.type, (plain, ArrayHost), {})

    def _titled(self, function):
        try:
            return function()
        except ValueError as error:
            raise ValueError(f"{self.LAYER.type}: {error}") from None

    def _call(self, arrays, seed, weights, top_diff):
        if not (isinstance(seed, (int, np.integer)) and 0 <= seed < 2**64):
            raise ValueError(f"seed is {seed!r}, must be an integer from 0 to 2^64 - 1")
        roles = self.LAYER.roles(len(arrays))
        if not roles:
            known = "; ".join(f"({', '.join(names)})" for names in self.LAYER.bottoms)
            raise ValueError(f"has {len(arrays)} arrays, must have {known}")
        dtype = _dtype(arrays, roles)
        bottom = [Array(_as(array, role, dtype)) for array, role in zip(arrays, roles)]
        top = [Array(np.zeros((), dtype)) for _ in self.LAYER.tops]
        layer = self._host()(dtype, int(seed))
        layer.accept(self.parameters)
        check_rows(bottom)
        layer.configure(bottom, top)
        learned = self._set_weights(layer.blobs, weights)
        layer.shape(bottom, top)
        layer.compute(bottom, top)
        value = top[0].data
        top[0].diff[...] = _factor(top_diff, value)
        layer.propagate(top, [role == suite.FEATURES for role in roles], bottom)
        gradients = [blob.diff for blob, role in zip(bottom, roles) if role == suite.FEATURES]
        gradients += [blob.diff for blob in learned]
        value = value if value.ndim else float(value)
        return value, gradients[0] if len(gradients) == 1 else tuple(gradients)

    def _set_weights(self, blobs, weights) -> list[Array]:
        """The blobs that are learned, filled with copies of the given arrays."""
        learned = [blob for i, blob in enumerate(blobs) if i not in self.LAYER.state_blobs]
        given = [weights] if len(learned) == 1 and weights is not None else list(weights or ())
        shapes, wanted = [np.shape(array) for array in given], [blob.shape for blob in learned]
        if shapes != wanted:
            raise ValueError(f"has weights of the shapes {shapes}, must have {wanted}")
        for blob, array in zip(learned, given):
            blob.data[...] = array
        return learned


def _dtype(arrays, roles):
    first = next(np.asarray(array) for array, role in zip(arrays, roles) if role == suite.FEATURES)
    return np.float32 if first.dtype == np.float32 else np.float64


def _as(array, role: str, dtype) -> np.ndarray:
    """An array as the layers take it: of one type, in C's order."""
    try:
        made = np.ascontiguousarray(array, dtype)
    except (TypeError, ValueError):
        raise ValueError(f"{role}: no array of numbers") from None
    if role == suite.LABEL:
        given = np.asarray(array)
        if given.dtype.kind in "iu" and (made.astype(np.int64) != given).any():
            raise ValueError(f"a label of {given.max()} is not exact in {np.dtype(dtype).name}")
    return made


def _factor(top_diff, value: np.ndarray):
    if top_diff is None:
        return 1
    if np.shape(top_diff) != value.shape:
        raise ValueError(f"top_diff has shape {np.shape(top_diff)}, must have {value.shape}")
    return top_diff


@functools.lru_cache(maxsize=None)
def array_layer(kind: str) -> type:
    """The class for a type of suite.py, such as "TripletLoss". Raises KeyError."""
    row = next((row for row in suite.LAYERS if row.type == kind and row.field), None)
    if row is None:
        raise KeyError(kind)
    plain = layers.without_caffe(row.python_class)
    about = f"{inspect.getdoc(plain)}\n\n{inspect.getdoc(ArrayLayer)}"
    made = type(kind, (ArrayLayer,), {"LAYER": row, "__doc__": about, "__module__": "caffe_metric"})
    fields = schema.of_layer(row).fields
    made.__signature__ = inspect.Signature(
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default)
        for field in fields
    )
    return made
