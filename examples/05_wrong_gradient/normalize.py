"""L2 normalisation as a Python layer, twice: with a mistake that is easily made, and without."""

from __future__ import annotations

import numpy as np

import caffe


class ForgetfulNormalize(caffe.Layer):
    """y = x / ||x||. Its backward takes ||x|| for a constant."""

    def setup(self, bottom, top):
        if len(bottom) != 1 or len(top) != 1:
            raise ValueError("takes one bottom and gives one top")

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        self.norms = np.linalg.norm(bottom[0].data, axis=1, keepdims=True)
        top[0].data[...] = bottom[0].data / self.norms

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = top[0].diff / self.norms


class Normalize(ForgetfulNormalize):
    """The same with its whole gradient: a longer x does not change y."""

    def backward(self, top, propagate_down, bottom):
        y, dy = top[0].data, top[0].diff
        along = (y * dy).sum(axis=1, keepdims=True) * y
        bottom[0].diff[...] = (dy - along) / self.norms
