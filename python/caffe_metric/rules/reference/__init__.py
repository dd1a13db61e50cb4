"""The mathematics of the layers in vectorised NumPy, for where `caffe_metric._core` is missing.

`caffe_metric.rules.compiled` has the same names over `_core`, and `caffe_metric.rules.backend`
chooses. Both take C-contiguous arrays of float32 or float64 and compute in the type they are given.
"""

from __future__ import annotations

from caffe_metric.rules.reference.all_triplets import all_triplets
from caffe_metric.rules.reference.batch_rules import rule_rows
from caffe_metric.rules.reference.gram import GramDistances, GramGradient
from caffe_metric.rules.reference.listed import listed_triplets
from caffe_metric.rules.reference.margin import target_curve
from caffe_metric.rules.reference.mining import mine
from caffe_metric.rules.reference.norm import norm_backward, norm_forward
from caffe_metric.rules.reference.pairs import pair_products, pair_sums, products_gradient
from caffe_metric.rules.reference.random import coin
from caffe_metric.rules.reference.rank_hard import rank_hard_select
from caffe_metric.rules.reference.softmax import draw_classes, exponentials
from caffe_metric.rules.reference.triplet_rows import RowTriplets

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
