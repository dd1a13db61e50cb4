"""ShardedMarginSoftmaxLoss: MarginSoftmaxLoss over classes that the ranks share out."""

from __future__ import annotations

import numpy as np

from caffe_metric.layers.base import TRAIN, MetricLossLayer, check_finite, label_column, zero_others
from caffe_metric.layers.margin_softmax_loss import MarginSoftmaxLossLayer
from caffe_metric.losses import margin_inner_product as margin
from caffe_metric.losses import margin_softmax as rules
from caffe_metric.parallel.ranks import here

# Rows that are filled at a time: they do not depend on how many ranks there are.
FILLED = 4096


class ShardedMarginSoftmaxLossLayer(MarginSoftmaxLossLayer):
    """MarginSoftmaxLoss with own_update, its classes shared out over the R ranks of a training.

    bottom 0  features, M x K after `axis`, of this rank
    bottom 1  labels, M, integers in [0, num_output), or ignore_label
    top 0     the loss of the R M rows of all ranks, as MarginSoftmaxLoss has it
    top 1     optional: lambda
    top 2     optional: the share of rows whose plain logit, without a margin, is the greatest

    Rank r has the weights of the classes [C r / R, C (r + 1) / R). A forward pass gathers the
    features of all ranks, folds each row's logits over the own classes, and makes of the ranks'
    folds those of all classes by two reductions: the maximum m = max_r m_r, and the sum
    sum_r s_r e^(m_r - m), with the target's logit from whoever has the class. So the softmax is
    exact, over all classes or, with sample_rate, over those that the ranks drew of theirs. The
    backward pass gives each rank the gradient of its own rows.

    The weights and their momentum are no blobs: a solver would keep four arrays of them, and they
    are not the mean of anything. The layer updates the rows that met, as own_update does, by SGD
    with update_rate, update_momentum and update_decay; `caffe-metric train` gives it the solver's
    rate, and keeps both in a file beside its snapshots, of which any number of ranks goes on.

    For phase TRAIN alone. Parameters: MarginInnerProductParameter, MarginSoftmaxLossParameter and
    ignore_label; without triplet, keep_logits and persist_iteration.
    """

    SHARDED = True

    def configure(self, bottom, top):
        p = self.parameters
        if self.phase != TRAIN:
            raise ValueError("has a part of the classes only: include { phase: TRAIN }")
        if len(bottom) != 2:
            raise ValueError(f"has {len(bottom)} bottoms, must have 2: features and labels")
        self._check_parameters()
        if p.triplet:
            raise ValueError("triplet is set, which has no meaning for classes that are learned")
        self._ranks = here()
        if p.num_output < self._ranks.size:
            raise ValueError(f"num_output is {p.num_output}, must be >= {self._ranks.size} ranks")
        self._features = self._width(bottom[0])
        ends = [p.num_output * rank // self._ranks.size for rank in range(self._ranks.size + 1)]
        self.first, last = ends[self._ranks.rank : self._ranks.rank + 2]
        self.weights = np.empty((last - self.first, self._features), bottom[0].data.dtype)
        self.history = np.zeros_like(self.weights)
        self.rate = self.softmax.update_rate
        self._iteration = p.iteration
        self._fill_weights()

    def _fill_weights(self):
        """By blocks of classes, each from a random state of its own."""
        from caffe_metric.layers import generator

        key, last = self.key_source(), self.first + len(self.weights)
        for start in range(self.first // FILLED * FILLED, last, FILLED):
            rows = min(FILLED, self.parameters.num_output - start)
            block = np.empty((rows, self._features), self.weights.dtype)
            generator.reseed(key, start)
            self.fill(block, self.parameters.weight_filler, "weight_filler")
            own = slice(max(start, self.first), min(start + rows, last))
            self.weights[own.start - self.first : own.stop - self.first] = block[
                own.start - start : own.stop - start
            ]
        generator.reseed(key, self.parameters.num_output)

    def _advance(self, train):
        self._iteration += 1
        return self._iteration

    def compute(self, bottom, top):
        p, s, ranks = self.parameters, self.softmax, self._ranks
        x = bottom[0].data.reshape(-1, self._features)
        check_finite(x, "features")
        labels = self._read_labels(label_column(bottom[1], len(x)))
        rule = self._rule(lamda := margin.annealed_lambda(p, self._advance(True)))
        key = self.draw_key() if s.sample_rate < 1 else 0
        self._x = ranks.gather(x).reshape(-1, self._features)
        labels = ranks.gather(labels).reshape(-1)
        self._met = self._draw_own(key, labels) if s.sample_rate < 1 else None
        if p.normalize_weights:
            self._scale(self.weights)
        found = rules.forward(
            p,
            rule,
            self._x,
            self.weights,
            self._met,
            self._place_own(labels),
            True,
            self.rules,
            labels >= 0,
        )
        self._reduce(found)
        self._found = found
        count = int(found.counts.sum())
        self._normalizer = {"FULL": len(labels), "BATCH_SIZE": len(labels), "NONE": 1}.get(
            self.normalization, max(1, count)
        )
        loss = found.losses(s.label_smoothing).sum() / self._normalizer
        right = (found.right(found.plain) & found.counts).sum() / max(1, count)
        self.report(top, (loss, lamda, right))

    def _draw_own(self, key, labels):
        """Of the own classes those of the batch, and a part of the others."""
        count = rules.sampled_count(self.softmax.sample_rate, len(self.weights))
        own = labels - self.first
        batch = np.unique(own[(labels >= 0) & (own >= 0) & (own < len(self.weights))])
        # Ranks draw apart.
        key = (key + 0x9E3779B97F4A7C15 * self.first) % 2**48
        return self.rules.draw_classes(key, len(self.weights), count, batch)

    def _place_own(self, labels):
        """Where the targets stand among the own classes that meet; elsewhere: below or above."""
        own = np.where(labels >= 0, labels - self.first, -1)
        if self._met is None:
            return own
        inside = (own >= 0) & (own < len(self.weights))
        place = np.where(own < 0, -1, len(self._met))
        return np.where(inside, np.searchsorted(self._met, own), place)

    def _reduce(self, found):
        """The rows' states over all ranks' classes."""
        ranks = self._ranks
        greatest = ranks.gather(np.stack([found.shift, found.before, found.after])).max(axis=0)
        found.sum *= np.exp(found.shift - greatest[0])
        found.shift, found.before, found.after = greatest
        sums = np.concatenate(
            [found.sum, found.total, found.target, found.plain, [float(found.classes)]]
        )
        ranks.add(sums)
        found.sum, found.total, found.target, found.plain = sums[:-1].reshape(4, -1)
        found.classes = int(sums[-1])

    def propagate(self, top, propagate_down, bottom):
        p, s, ranks, found = self.parameters, self.softmax, self._ranks, self._found
        weight = float(top[0].diff) / self._normalizer
        dx = np.zeros_like(self._x)
        strips = rules.gradients(
            p,
            found,
            self._x,
            self.weights,
            self._met,
            weight,
            s.label_smoothing,
            self.rules,
            dx,
            lambda part: np.zeros((part.stop - part.start, self._features), dx.dtype),
        )
        for part, dw in strips:
            self._update_rows(part if self._met is None else self._met[part], dw)
        zero_others(propagate_down, bottom)
        if not propagate_down[0]:
            return
        # The mean over the ranks is made of the gradients below, each of the rows of one rank.
        dx = ranks.size * ranks.sum_own(dx.reshape(ranks.size, -1, self._features))
        if p.semihard:
            wanted = ~found.right(found.target)
            if found.passes[0][1].rule[0] > 1:
                wanted &= found.right(found.plain)
            dx[~wanted.reshape(ranks.size, -1)[ranks.rank]] = 0
        bottom[0].diff[...] = dx.reshape(bottom[0].diff.shape)

    def _update_rows(self, rows, dw):
        """h = momentum h + rate (dw + decay w), w = w - h."""
        s, kind = self.softmax, self.weights.dtype.type
        weights, history = self.weights[rows], self.history[rows]
        dw += kind(s.update_decay) * weights
        dw *= kind(self.rate)
        dw += kind(s.update_momentum) * history
        self.history[rows] = dw
        self.weights[rows] = weights - dw

    def shape(self, bottom, top):
        MetricLossLayer.shape(self, bottom, top)
        label_column(bottom[1], self._rows(bottom[0]))
