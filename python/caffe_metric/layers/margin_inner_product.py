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
    bottom 1  labels, M, integers in [0, num_output); with ignore_negative_labels also negative
              ones, of rows without a margin
    top 0     logits, M x num_output
    top 1     optional: lambda
    blob 0    weights, num_output x K; a TRAIN forward scales their rows to length 1, in place
    blob 1    with persist_iteration: t, one number

    z_j = scale r c_j, c_j = cos of the feature and row j; the label's is
    scale r (lambda c + psi) / (1 + lambda), psi = (-1)^k cos(m theta) - 2k, k = floor(m theta / pi)
    (SphereFace, Liu et al. 2017, equations 6 to 8), or scale r (cos(theta + angular_margin) -
    cosine_margin), angles in radians (ArcFace, Deng et al. 2019; CosFace, Wang et al. 2018).
    r = ||x||, or 1 with normalize_features; without normalize_weights every logit is times the
    length of its row, too (L-Softmax, Liu et al. 2016).
    lambda = max(base (1 + gamma t)^-power, lambda_min).

    A Python layer cannot set the learning rate of t, so its prototxt does:

        param { } param { lr_mult: 0 decay_mult: 0 }

    The layer counts t itself, reads the blob at its first TRAIN forward, and writes it back at
    each.

    Parameters: MarginInnerProductParameter.
    """

    MESSAGE = "MarginInnerProductParameter"
    MOST_TOPS = 2

    def configure(self, bottom, top):
        p = self.parameters
        if len(bottom) != 2 or not 1 <= len(top) <= self.MOST_TOPS:
            raise ValueError(
                f"has {len(bottom)} bottoms and {len(top)} tops, must have 2 bottoms "
                f"(features, labels) and 1 to {self.MOST_TOPS} tops"
            )
        self._check_parameters()
        self._features = self._width(bottom[0])
        self.loaded = not self.add_blobs(*self._blob_shapes())
        if not self.loaded:
            self.fill(self.blobs[0].data, p.weight_filler, "weight_filler")
            if p.persist_iteration:
                self.blobs[1].data[...] = p.iteration
        self._iteration = None
        if p.triplet:
            self.log(f"{self.title}: triplet: its weights should have lr_mult 0 and decay_mult 0")

    def _blob_shapes(self) -> list[tuple[int, ...]]:
        weights = (self.parameters.num_output, self._features)
        return [weights, (1,)] if self.parameters.persist_iteration else [weights]

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
        plain = p.normalize_weights and not p.normalize_features and p.scale == 1
        if p.gradient == "REFERENCE" and (additive or not plain):
            raise ValueError(
                "gradient REFERENCE excludes normalize_features, scale, angular_margin and "
                "cosine_margin, and needs normalize_weights"
            )

    def _width(self, blob) -> int:
        shape = list(blob.shape)
        axis = self.parameters.axis
        if not -len(shape) <= axis < len(shape):
            raise ValueError(f"axis is {axis}, the features have shape {shape}")
        self._axis = axis % len(shape)
        return int(np.prod(shape[self._axis :], dtype=np.int64))

    def _rows(self, blob) -> int:
        """The number of features; their width must not change."""
        width = self._width(blob)
        if width != self._features:
            raise ValueError(f"the features have width {width}, the weights {self._features}")
        return int(np.prod(list(blob.shape)[: self._axis], dtype=np.int64))

    def shape(self, bottom, top):
        label_column(bottom[1], self._rows(bottom[0]))
        shape = [*list(bottom[0].shape)[: self._axis], self.parameters.num_output]
        top[0].reshape(*shape)
        if len(top) > 1:
            top[1].reshape()

    def compute(self, bottom, top):
        p = self.parameters
        x = bottom[0].data.reshape(-1, self._features)
        labels = label_column(bottom[1], len(x))
        self._labels = self._read_labels(labels)
        train = self.phase == TRAIN
        lamda = rules.annealed_lambda(p, self._advance(train))
        rule = self._rule(lamda)
        weights = self.blobs[0].data
        if train and p.normalize_weights:
            rules.scale_to_unit_rows(weights)
        as_they_are = train or not p.normalize_weights
        logits = top[0].data.reshape(len(x), -1)
        self._pass = rules.forward(
            p, rule, x, weights, self._labels, logits, as_they_are, self.rules
        )
        self._wanted = None
        if p.semihard and (train or p.margin_in_test):
            self._wanted = rules.neither_easy_nor_hard(p, self._pass, logits, self._labels)
        if len(top) > 1:
            top[1].data[...] = lamda
        self._key = self.draw_key() if p.triplet else 0

    def _rule(self, lamda: float) -> tuple[int, float, float, float]:
        """Of the target: m, lambda and both margins."""
        p = self.parameters
        if self.phase == TRAIN or p.margin_in_test:
            return WIDTH[p.type], lamda, p.angular_margin, p.cosine_margin
        return 1, 0.0, 0.0, 0.0  # the plain cosine

    def _read_labels(self, labels) -> np.ndarray:
        """The labels as integers, -1 for a row that has none."""
        none = labels < 0 if self.parameters.ignore_negative_labels else np.zeros(len(labels), bool)
        none &= labels == np.floor(labels)
        check_labels(np.where(none, 0, labels), self.parameters.num_output)
        return np.where(none, -1, labels).astype(np.int64)

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
        rules.backward(p, self._pass, x, weights, top_diff, dx, dw)
        if dx is not None and self._wanted is not None:
            dx[~self._wanted & (self._labels >= 0)] = 0
        zero_others(propagate_down, bottom)
        if p.triplet:
            self.blobs[0].diff[...] = 0
            if self.phase == TRAIN:
                rules.place_samples(x, weights, self._labels, self._key, self.rules)
