"""The mathematics of the layers in vectorised NumPy, for where `caffe_metric._core` is missing.

Functions of the same names stand in `_core`; `caffe_metric.backend` chooses. Both take C-contiguous
arrays of float32 or float64 and compute in the type they are given.
"""

from caffe_metric.reference.gram import GramDistances
from caffe_metric.reference.margin import target_curve
from caffe_metric.reference.mining import all_hinge, mine
from caffe_metric.reference.norm import norm_backward, norm_forward
from caffe_metric.reference.pairs import pair_products, pairs_gradient, products_gradient
from caffe_metric.reference.random import coin
from caffe_metric.reference.rank_hard import rank_hard_select
from caffe_metric.reference.triplet import triplet_rule
from caffe_metric.reference.triplet_rows import RowTriplets

__all__ = [
    "GramDistances",
    "RowTriplets",
    "all_hinge",
    "coin",
    "mine",
    "norm_backward",
    "norm_forward",
    "pair_products",
    "pairs_gradient",
    "products_gradient",
    "rank_hard_select",
    "target_curve",
    "triplet_rule",
]
