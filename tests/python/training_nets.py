"""A small net, its data and its solver, that trains in a second; for the tests of `train`."""

from __future__ import annotations

import numpy as np
from caffe_metric.data import datum
from caffe_metric.data.lmdb_file import write_lmdb

DATA = """
layer { name: "data" type: "Data" top: "data" top: "label" transform_param { scale: 0.01 }
  data_param { source: "data.lmdb" batch_size: 16 backend: LMDB } }
"""
FC = """
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
  inner_product_param { num_output: 8 weight_filler { type: "xavier" } } }
"""
NORM = 'layer { name: "norm" type: "Norm" bottom: "fc" top: "norm" }\n'
TRIPLET = """
layer { name: "triplet" type: "TripletLoss" bottom: "norm" bottom: "label" top: "triplet" top: "on"
  triplet_loss_param { margin: 0.3 mining: ALL } }
"""
SOFTMAX = """
layer { name: "out" type: "InnerProduct" bottom: "fc" top: "out"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "softmax" type: "SoftmaxWithLoss" bottom: "out" bottom: "label" top: "softmax" }
"""
MARGIN = """
layer { name: "margin" type: "MarginInnerProduct" bottom: "fc" bottom: "label" top: "margin"
  margin_inner_product_param { num_output: 4 type: DOUBLE weight_filler { type: "xavier" }
    base: 50 gamma: 0.1 lambda_min: 1 } }
layer { name: "softmax" type: "SoftmaxWithLoss" bottom: "margin" bottom: "label" top: "softmax" }
"""
# Of everything before it makes one point, which does not move.
POINT = """
layer { name: "fc" type: "InnerProduct" bottom: "zero" top: "fc"
  inner_product_param { num_output: 8 weight_filler { type: "xavier" } bias_filler { value: 1 } } }
"""
ZERO = 'layer { name: "zero" type: "Power" bottom: "data" top: "zero" power_param { scale: 0 } }\n'
SOLVER = """
net: "net.prototxt" base_lr: 0.02 lr_policy: "fixed" momentum: 0.9 max_iter: 60 display: 5
snapshot: 30 snapshot_prefix: "small" random_seed: 3 solver_mode: CPU
"""


def write(folder, net=DATA + FC + NORM + TRIPLET, **settings):
    """A net and a solver, with some of its settings replaced; 64 images of four classes."""
    folder.mkdir(exist_ok=True)
    if not (folder / "data.lmdb").exists():
        rng = np.random.default_rng(20150606)
        labels = np.arange(64) % 4
        images = rng.integers(0, 60, (4, 1, 5, 5))[labels] + rng.integers(0, 90, (64, 1, 5, 5))
        records = [
            ("", datum.encode(image.astype(np.uint8), int(label)))
            for image, label in zip(images, labels)
        ]
        write_lmdb(folder / "data.lmdb", records)
    (folder / "net.prototxt").write_text(net)
    words = SOLVER.split()
    for name, value in settings.items():
        if f"{name}:" in words:
            words[words.index(f"{name}:") + 1] = str(value)
        else:
            words += [f"{name}:", str(value)]
    (folder / "solver.prototxt").write_text(" ".join(words))
    return folder
