"""MarginInnerProduct: A-Softmax, Angular Triplet Loss, ArcFace and CosFace logits."""

from __future__ import annotations

import math

import numpy as np

from caffe_metric.layers.base import TRAIN, MetricLayer, check_labels, label_column, zero_others
from caffe_metric.losses import margin_inner_product as rules

WIDTH = {"SINGLE": 1, "DOUBLE": 2, "TRIPLE": 3, "QUADRUPLE": 4}


class MarginInnerProductLayer(MetricLayer):
    """Logits from the angles of a feature and the classes, the label's made harder by a margin.

    bottom 0  features, M x K after `axis`
    bottom 1  labels, M, integers in [0, num_output)
    top 0     logits, M x num_output
    top 1     optional: lambda
    blob 0    weights, num_output x K; a TRAIN forward scales their rows to length 1, in place
    blob 1    with persist_iteration: t, one number

    z_j = scale r c_j, c_j = cos of the feature and row j; the label's is
    scale r (lambda c + psi) / (1 + lambda), psi = (-1)^k cos(m theta) - 2k, k = floor(m theta / pi)
    (SphereFace, Liu et al. 2017, equations 6 to 8), or scale r (cos(theta + angular_margin) -
    cosine_margin), angles in radians (ArcFace, Deng et al. 2019; CosFace, Wang et al. 2018).
    r = ||x||, or 1 with normalize_features. lambda = max(base (1 + gamma t)^-power, lambda_min).

    A Python layer cannot set the learning rate of t, so its prototxt does:

        param { } param { lr_mult: 0 decay_mult: 0 }

    The layer counts t itself, reads the blob at its first TRAIN forward, and writes it back at
    each.

    Parameters: MarginInnerProductParameter.
    """

    MESSAGE = "MarginInnerProductParameter"

    def configure(self, bottom, top):
        p = self.parameters
        if len(bottom) != 2 or not 1 <= len(top) <= 2:
            raise ValueError(
                f"has {len(bottom)} bottoms and {len(top)} tops, must have 2 bottoms "
                "(features, labels) and 1 or 2 tops"
            )
        self._check_parameters()
        self._features = self._width(bottom[0])
        weights = (p.num_output, self._features)
        if self.add_blobs(weights, *[(1,)] * p.persist_iteration):
            self.fill(self.blobs[0].data, p.weight_filler, "weight_filler")
            if p.persist_iteration:
                self.blobs[1].data[...] = p.iteration
        self._iteration = None
        if p.triplet:
            self.log(f"{self.title}: triplet: its weights should have lr_mult 0 and decay_mult 0")

    def _check_parameters(self):
        p = self.parameters
        if not p.num_output:
            raise ValueError(f"num_output is {p.num_output}, must be >= 1")
        if not p.scale > 0:
            raise ValueError(f"scale is {p.scale:g}, must be > 0")
        for name in ("base", "gamma", "lambda_min", "iteration"):
            if not getattr(p, name) >= 0:
                raise ValueError(f"{name} is {getattr(p, name):g}, must be >= 0")
        if not 0 <= p.angular_margin < math.pi / 2:
            raise ValueError(f"angular_margin is {p.angular_margin:g}, must be in [0, pi/2)")
        additive = p.angular_margin != 0 or p.cosine_margin != 0
        if additive and p.type != "SINGLE":
            raise ValueError(f"angular_margin and cosine_margin need type SINGLE, it is {p.type}")
        if p.gradient == "REFERENCE" and (p.normalize_features or p.scale != 1 or additive):
            raise ValueError(
                "gradient REFERENCE excludes normalize_features, scale, angular_margin and "
                "cosine_margin"
            )

    def _width(self, blob) -> int:
        shape = list(blob.shape)
        axis = self.parameters.axis
        if not -len(shape) <= axis < len(shape):
            raise ValueError(f"axis is {axis}, the features have shape {shape}")
        self._axis = axis % len(shape)
        return int(np.prod(shape[self._axis :], dtype=np.int64))

    def shape(self, bottom, top):
        width = self._width(bottom[0])
        if width != self._features:
            raise ValueError(f"the features have width {width}, the weights {self._features}")
        shape = [*list(bottom[0].shape)[: self._axis], self.parameters.num_output]
        label_column(bottom[1], int(np.prod(shape[:-1], dtype=np.int64)))
        top[0].reshape(*shape)
        if len(top) > 1:
            top[1].reshape()

    def compute(self, bottom, top):
        p = self.parameters
        x = bottom[0].data.reshape(-1, self._features)
        labels = label_column(bottom[1], len(x))
        check_labels(labels, p.num_output)
        self._labels = labels.astype(np.int64)
        train = self.phase == TRAIN
        lamda = rules.annealed_lambda(p, self._advance(train))
        rule = (1, 0.0, 0.0, 0.0)  # the plain cosine
        if train or p.margin_in_test:
            rule = (WIDTH[p.type], lamda, p.angular_margin, p.cosine_margin)
        weights = self.blobs[0].data
        if train:
            rules.scale_to_unit_rows(weights)
        logits = top[0].data.reshape(len(x), -1)
        self._pass = rules.forward(p, rule, x, weights, self._labels, logits, train, self.rules)
        self._wanted = None
        if p.semihard and (train or p.margin_in_test):
            self._wanted = rules.neither_easy_nor_hard(p, self._pass, logits, self._labels)
        if len(top) > 1:
            top[1].data[...] = lamda
        self._key = self.draw_key() if p.triplet else 0

    def _advance(self, train: bool) -> int:
        """t of this forward pass; TEST does not count, and sees t in the blob that TRAIN writes."""
        persist = self.parameters.persist_iteration
        if not train:
            return int(self.blobs[1].data[0]) if persist else self.parameters.iteration
        if self._iteration is None:
            self._iteration = int(self.blobs[1].data[0]) if persist else self.parameters.iteration
        self._iteration += 1
        if persist:
            self.blobs[1].data[...] = self._iteration
        return self._iteration

    def propagate(self, top, propagate_down, bottom):
        p = self.parameters
        x = bottom[0].data.reshape(-1, self._features)
        weights = self.blobs[0].data
        dx = bottom[0].diff.reshape(x.shape) if propagate_down[0] else None
        dw = None if p.triplet else self.blobs[0].diff
        top_diff = top[0].diff.reshape(len(x), -1)
        rules.backward(p, self._pass, x, weights, self._labels, top_diff, dx, dw)
        if dx is not None and self._wanted is not None:
            dx[~self._wanted] = 0
        zero_others(propagate_down, bottom)
        if p.triplet:
            self.blobs[0].diff[...] = 0
            if self.phase == TRAIN:
                rules.place_samples(x, weights, self._labels, self._key, self.rules)
