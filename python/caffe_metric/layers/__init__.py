"""The layers of caffe-metric as Python layers, for a Caffe that is not rebuilt.

    layer {
      name: "loss" type: "Python" bottom: "embedding" bottom: "label" top: "loss" loss_weight: 1
      python_param {
        module: "caffe_metric.layers" layer: "TripletLossLayer" param_str: "margin: 0.2"
      }
    }

param_str is YAML with the field names of proto/caffe_metric.proto. Every layer takes three more:

    normalization  FULL, VALID, BATCH_SIZE or NONE, of a loss layer; replaces its own normaliser
    backend        core or numpy: where the row rules are computed
    name           how messages name the layer (Caffe does not tell a Python layer its name)

A Python layer has no default loss_weight: a prototxt lists one for each top.
"""

from caffe_metric.layers.identity_data import IdentityDataLayer
from caffe_metric.layers.margin_inner_product import MarginInnerProductLayer
from caffe_metric.layers.norm import NormLayer
from caffe_metric.layers.rank_hard_loss import RankHardLossLayer
from caffe_metric.layers.triplet_loss import TripletLossLayer
from caffe_metric.layers.triplet_select import TripletSelectLayer

__all__ = [
    "IdentityDataLayer",
    "MarginInnerProductLayer",
    "NormLayer",
    "RankHardLossLayer",
    "TripletLossLayer",
    "TripletSelectLayer",
]
