"""The functions of `caffe_metric.rules.reference` over the C++ rules of `caffe_metric._core`."""

from __future__ import annotations

import numpy as np

from caffe_metric import _core
from caffe_metric._core import (
    coin,
    draw_classes,
    exponentials,
    norm_backward,
    norm_forward,
    pair_products,
    target_curve,
)
from caffe_metric.nets import schema
from caffe_metric.rules.reference import all_triplets as all_triplets_of_classes
from caffe_metric.rules.reference import gram
from caffe_metric.rules.reference.distance import LP, SIMILARITY, UNIT_L2
from caffe_metric.rules.reference.mining import Triplets
from caffe_metric.rules.reference.triplet import TripletOptions, TripletSums

__all__ = [
    "GramDistances",
    "GramGradient",
    "RowTriplets",
    "all_triplets",
    "coin",
    "draw_classes",
    "exponentials",
    "listed_triplets",
    "mine",
    "norm_backward",
    "norm_forward",
    "pair_products",
    "pair_sums",
    "products_gradient",
    "rank_hard_select",
    "rule_rows",
    "target_curve",
]

_ENUMS = schema.message("TripletLossParameter").enums
_LOSS = _ENUMS["LossType"].values
# Two more are no parameter of a layer.
_DISTANCE = {**_ENUMS["Distance"].values, UNIT_L2: 4, SIMILARITY: 5}
_MINING = _ENUMS["Mining"].values


class GramDistances:
    """The distances of the rows of one batch x (N x D)."""

    def __init__(self, distance, x):
        self.distance, self.x = distance, x
        self.kind = _DISTANCE[distance.kind]
        self.squares = np.zeros(len(x), x.dtype)
        self.lengths = np.zeros(len(x), x.dtype)
        self.u = x
        if distance.kind != LP:
            self.u = np.empty_like(x)
            _core.prepare_rows(self.kind, x, self.u, self.squares, self.lengths)

    def strip(self, rows, first=0):
        """d(x_i, x_j) for i in rows and every j from `first` on, of shape (len(rows), ...)."""
        if self.distance.kind == LP:
            d = np.empty((len(rows), len(self.x)), self.x.dtype)
        else:
            d = _rows(self.u, rows) @ self.u[first:].T
        p, eps = self.distance.p, self.distance.eps
        _core.gram_to_distances(self.kind, p, eps, rows, self.u, self.squares, d, first)
        return d


class GramGradient(gram.GramGradient):
    """The gradient of sum_ij w_ij d_ij, collected strip by strip."""

    def weights(self, d, w):
        _core.gram_weights(self.batch.kind, d, w)
        return w

    def with_transpose(self, v):
        _core.add_transpose(v)
        return v

    def result(self):
        batch = self.batch
        if batch.distance.kind != LP:
            _core.finish_gradient(
                batch.kind, batch.x, batch.u, batch.lengths, self.sums, self.gradient
            )
        return self.gradient


class RowTriplets:
    """The G x K triplets of given rows. `weight` (G) multiplies a group's loss."""

    def __init__(self, options: TripletOptions, a, p, n, weight=None):
        kind = _core.RowTriplets32 if a.dtype == np.float32 else _core.RowTriplets64
        self._triplets = kind(_options(options), a, p, n, weight)
        self.sums = _sums(self._triplets.stats)

    def gradient(self, scale: float, da, dp, dn) -> None:
        """Writes `scale` times the gradient of the sum of losses to da, dp and dn."""
        self._triplets.gradient(scale, da, dp, dn)


def mine(mining: str, d, rows, labels, margin: float, key: int) -> Triplets:
    found = _core.mine(_MINING[mining], d, rows, labels, margin, key)
    return Triplets(*np.ascontiguousarray(found.T))


def listed_triplets(options: TripletOptions, batch, a, p, n, d_ap, d_an):
    """As the reference, with the distances taken from the rows anew."""
    triplets = np.stack((a, p, n), axis=1)
    terms = np.empty((len(a), _core.LISTED_TERM_SIZE), batch.x.dtype)
    own = _options(options)
    stats = _core.listed_triplets(own, batch.x, triplets, terms)

    def gradient():
        out = np.zeros_like(batch.x)
        _core.listed_gradient(own, batch.x, triplets, terms, out)
        return out

    return _sums(stats), gradient


def all_triplets(options: TripletOptions, d, rows, labels):
    if options.swap and len(rows) < len(labels):
        return all_triplets_of_classes(options, d, rows, labels)
    slopes = np.zeros_like(d)
    stats = _core.all_triplets(_options(options), d, rows, labels, slopes)
    return _sums(stats), slopes


def pair_sums(d, rows, labels):
    return np.array(_core.pair_sums(d, rows, labels))


def rank_hard_select(products, anchors, labels, parameters, key: int):
    p = parameters
    return _core.rank_hard_select(
        products, anchors, labels, p.neg_num, p.hard_ratio, p.rand_ratio, p.margin, key
    )


class _RuleRows:
    """As rules.reference.batch_rules.RuleRows."""

    def __init__(self, kind, parameters, labels, anchors, proxies):
        rows = _core.RuleRows32 if labels.dtype == np.float32 else _core.RuleRows64
        self._rows = rows(kind, vars(parameters), labels, anchors, proxies)
        self.measure = next(
            name for name, value in _DISTANCE.items() if value == self._rows.measure
        )
        self.reduction, self.two_sweeps = self._rows.reduction, self._rows.two_sweeps
        self.fold, self.meet, self.slope = self._rows.fold, self._rows.meet, self._rows.slope

    @property
    def pairs(self):
        return self._rows.pairs


def rule_rows(kind: str, parameters, labels, anchors: int, proxies: int = 0):
    return _RuleRows(kind, parameters, labels, anchors, proxies)


def products_gradient(x, u, v, w):
    gradient = np.zeros_like(x)
    _core.products_gradient(x, u, v, w, gradient)
    return gradient


def _rows(matrix, rows):
    """matrix[rows], without a copy where they follow one another."""
    first, last = rows[0], rows[-1]
    if last - first == len(rows) - 1 and np.array_equal(rows, np.arange(first, last + 1)):
        return matrix[first : last + 1]
    return matrix[rows]


def _options(options: TripletOptions):
    distance = options.distance
    return _core.Options(
        losstype=_LOSS[options.losstype],
        margin=options.margin,
        distance=_DISTANCE[distance.kind],
        p=distance.p,
        eps=distance.eps,
        swap=options.swap,
        use_pair=options.use_pair,
    )


def _sums(stats) -> TripletSums:
    return TripletSums(stats.loss, int(stats.selected), int(stats.active), stats.d_ap, stats.d_an)
