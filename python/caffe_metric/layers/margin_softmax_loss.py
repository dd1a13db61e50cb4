"""MarginSoftmaxLoss: MarginInnerProduct and SoftmaxWithLoss in one, for very many classes."""

from __future__ import annotations

import numpy as np

from caffe_metric.layers.base import (
    TRAIN,
    MetricLossLayer,
    check_finite,
    label_column,
    zero_others,
)
from caffe_metric.layers.margin_inner_product import MarginInnerProductLayer
from caffe_metric.losses import margin_inner_product as margin
from caffe_metric.losses import margin_softmax as rules
from caffe_metric.nets import schema

OWN_UPDATE = ("update_rate", "update_momentum", "update_decay")


class MarginSoftmaxLossLayer(MarginInnerProductLayer, MetricLossLayer):
    """-ln of the softmax of MarginInnerProduct's logits, made a strip of classes at a time.

    bottom 0  features, M x K after `axis`
    bottom 1  labels, M, integers in [0, num_output), or ignore_label
    top 0     the loss: 1/Z sum_i (ln sum_j e^z_ij - (1 - s) z_iy - s/n sum_j z_ij), n the number
              of classes that meet, s label_smoothing, Z the rows that are not ignored
    top 1     optional: lambda
    top 2     optional: the share of rows whose plain logit, without a margin, is the greatest
    blob 0    weights, num_output x K; a TRAIN forward scales the rows that meet to length 1
    blob 1    with persist_iteration: t, one number
    blobs     with own_update: the momentum, num_output x K, and the rate, one number

    With sample_rate < 1 a TRAIN pass meets the classes of the batch and a random part of the
    others (Partial FC, An et al. 2021). With own_update the layer updates the rows that met,
    h = momentum h + rate (dw + decay w), w = w - h, and leaves the others as they are; its prototxt
    gives the solver nothing to do: param { lr_mult: 0 decay_mult: 0 } for every blob.

    Parameters: MarginInnerProductParameter and MarginSoftmaxLossParameter, and ignore_label.
    """

    MESSAGE = "MarginSoftmaxLossParameter"
    MOST_TOPS = 3

    def parse(self, values):
        self._ignored = values.pop("ignore_label", None)
        names = {field.name for field in schema.message("MarginSoftmaxLossParameter").fields}
        own = {name: values.pop(name) for name in list(values) if name in names}
        self.softmax = schema.message("MarginSoftmaxLossParameter").parse(own)
        return schema.message("MarginInnerProductParameter").parse(values)

    def configure(self, bottom, top):
        super().configure(bottom, top)
        if self.softmax.own_update and not self.loaded:
            self.blobs[len(self.blobs) - 1].data[...] = self.softmax.update_rate

    def _blob_shapes(self):
        shapes = super()._blob_shapes()
        return [*shapes, shapes[0], (1,)] if self.softmax.own_update else shapes

    def _check_parameters(self):
        super()._check_parameters()
        s = self.softmax
        if not 0 < s.sample_rate <= 1:
            raise ValueError(f"sample_rate is {s.sample_rate:g}, must be in (0, 1]")
        if not 0 <= s.label_smoothing < 1:
            raise ValueError(f"label_smoothing is {s.label_smoothing:g}, must be in [0, 1)")
        for name in OWN_UPDATE:
            if not getattr(s, name) >= 0:
                raise ValueError(f"{name} is {getattr(s, name):g}, must be >= 0")
        if not s.update_momentum < 1:
            raise ValueError(f"update_momentum is {s.update_momentum:g}, must be < 1")
        if s.own_update and self.parameters.triplet:
            raise ValueError("own_update and triplet exclude each other")

    def shape(self, bottom, top):
        MetricLossLayer.shape(self, bottom, top)
        label_column(bottom[1], self._rows(bottom[0]))

    def _read_labels(self, labels):
        if self._ignored is None:
            return super()._read_labels(labels)
        none = labels == self._ignored
        return np.where(none, -1, super()._read_labels(np.where(none, 0, labels)))

    def compute(self, bottom, top):
        p, s = self.parameters, self.softmax
        x = bottom[0].data.reshape(-1, self._features)
        check_finite(x, "features")
        labels = self._read_labels(label_column(bottom[1], len(x)))
        train = self.phase == TRAIN
        lamda = margin.annealed_lambda(p, self._advance(train))
        rule = self._rule(lamda)
        sampled = train and s.sample_rate < 1
        self._key = self.draw_key() if p.triplet or sampled else 0
        self._labels = labels
        self._met = self._draw(labels) if sampled else None
        weights = self.blobs[0].data
        if train and p.normalize_weights:
            self._scale(weights)
        place = labels if self._met is None else self._place(labels)
        as_they_are = train or not p.normalize_weights
        found = rules.forward(p, rule, x, weights, self._met, place, as_they_are, self.rules)
        self._found = found
        self._applies = train or p.margin_in_test
        valid = int((labels >= 0).sum())
        self._normalizer = {"FULL": len(x), "BATCH_SIZE": len(x), "NONE": 1}.get(
            self.normalization, max(1, valid)
        )
        loss = found.losses(s.label_smoothing).sum() / self._normalizer
        right = (found.right(found.plain) & (labels >= 0)).sum() / max(1, valid)
        self.report(top, (loss, lamda, right))

    def _draw(self, labels):
        count = rules.sampled_count(self.softmax.sample_rate, self.parameters.num_output)
        batch = np.unique(labels[labels >= 0])
        return self.rules.draw_classes(self._key, self.parameters.num_output, count, batch)

    def _place(self, labels):
        """Where the targets stand among the classes that meet."""
        return np.where(labels >= 0, np.searchsorted(self._met, labels), -1)

    def _scale(self, weights):
        if self._met is None:
            margin.scale_to_unit_rows(weights)
            return
        for part in rules.parts(1, len(self._met)):
            rows = weights[self._met[part]]
            margin.scale_to_unit_rows(rows)
            weights[self._met[part]] = rows

    def propagate(self, top, propagate_down, bottom):
        p, s, found = self.parameters, self.softmax, self._found
        x = bottom[0].data.reshape(-1, self._features)
        weights = self.blobs[0].data
        update = s.own_update and self.phase == TRAIN
        dx = dw = None
        if propagate_down[0]:
            dx = bottom[0].diff.reshape(x.shape)
            dx[...] = 0
        if not p.triplet:
            dw = self.blobs[0].diff
            if update or self._met is not None:
                met = len(weights) if self._met is None else len(self._met)
                dw = np.zeros((met, x.shape[1]), x.dtype)
        weight = float(top[0].diff) / self._normalizer
        rules.backward(
            p, found, x, weights, self._met, weight, s.label_smoothing, self.rules, dx, dw
        )
        if dx is not None and p.semihard and self._applies:
            wrong = ~found.right(found.target)
            if found.passes[0][1].rule[0] > 1:
                wrong &= found.right(found.plain)
            dx[~wrong] = 0
        zero_others(propagate_down, bottom)
        if p.triplet:
            self.blobs[0].diff[...] = 0
            if self.phase == TRAIN:
                margin.place_samples(x, weights, self._labels, self._key, self.rules)
        elif update:
            self._update(dw, weights)
        elif self._met is not None:
            self.blobs[0].diff[self._met] += dw

    def _update(self, dw, weights):
        """SGD of the rows that met."""
        s = self.softmax
        kind = weights.dtype.type
        history, rate = (self.blobs[len(self.blobs) + i].data for i in (-2, -1))
        rows = slice(None) if self._met is None else self._met
        own = weights[rows]
        step = kind(s.update_momentum) * history[rows]
        step += kind(rate[0]) * (dw + kind(s.update_decay) * own)
        history[rows] = step
        weights[rows] = own - step
