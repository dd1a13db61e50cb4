"""Norm: y = x / max(||x||, eps) over axis 1."""

from __future__ import annotations

from caffe_metric.layers.base import MetricLayer


class NormLayer(MetricLayer):
    """Scales each vector along axis 1 to length 1, at each position of the further axes.

    bottom  N x C x ..., at least 2 axes
    top     the same shape; may be the bottom itself (in place)

    y = x / max(||x||_2, eps), and with g the gradient of y: dx = (g - (g . y) y) / ||x||, or 0
    where ||x|| < eps. Parameters: L2NormParameter (eps > 0).
    """

    MESSAGE = "L2NormParameter"

    def configure(self, bottom, top):
        if not self.parameters.eps > 0:
            raise ValueError(f"eps is {self.parameters.eps:g}, must be > 0")
        if len(bottom) != 1 or len(top) != 1:
            raise ValueError(f"has {len(bottom)} bottoms and {len(top)} tops, must have 1 and 1")

    def shape(self, bottom, top):
        shape = list(bottom[0].shape)
        if len(shape) < 2:
            raise ValueError(f"needs a bottom of at least 2 axes, has shape {shape}")
        top[0].reshape(*shape)

    def compute(self, bottom, top):
        shape = (*list(bottom[0].shape)[:2], -1)
        x, y = bottom[0].data.reshape(shape), top[0].data.reshape(shape)
        self._norms = self.rules.norm_forward(x, self.parameters.eps, y)

    def propagate(self, top, propagate_down, bottom):
        if not propagate_down[0]:
            return
        shape = (*list(bottom[0].shape)[:2], -1)
        y, dy = top[0].data.reshape(shape), top[0].diff.reshape(shape)
        dx = bottom[0].diff.reshape(shape)
        self.rules.norm_backward(y, self._norms, self.parameters.eps, dy, dx)
