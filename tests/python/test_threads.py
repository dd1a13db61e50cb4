"""Rows of a batch are worked on side by side: the bits do not depend on the number of threads.

The matrix products are BLAS's. Those of a forward pass have the same bits here; what a gradient
sums over all rows, OpenBLAS splits in another way on one thread than on more.
"""

from __future__ import annotations

import os
import subprocess
import sys

from harness import need

LOSSES = [
    ("TripletLoss", "triplet_loss_param { mining: ALL margin: 0.2 }"),
    ("TripletLoss", "triplet_loss_param { mining: SEMIHARD distance: L2 }"),
    ("RankHardLoss", "rank_param { neg_num: 4 }"),
    ("SupConLoss", ""),
    ("CircleLoss", ""),
    ("MultiSimilarityLoss", ""),
    ("BatchContrastiveLoss", "batch_contrastive_loss_param { negative_margin: 1.4 }"),
    ("LiftedStructureLoss", ""),
    ("LiftedStructureLoss", "lifted_structure_loss_param { form: GENERALIZED }"),
]

PROGRAM = """
import sys
import caffe
import numpy as np
from caffe_metric.nets import one_layer

rng = np.random.default_rng(1)
x = rng.normal(size=(500, 33)).astype(np.float32)
bottoms = {"x": x, "y": np.repeat(np.arange(125), 4).astype(np.float32)}
for line in sys.argv[1:]:
    kind, _, body = line.partition(" ")
    ends = 'bottom: "x" bottom: "y" top: "top"'
    layer = 'layer { name: "layer" type: "%s" %s %s }' % (kind, ends, body)
    net = one_layer.build(one_layer.inputs(bottoms) + layer)
    for name, value in bottoms.items():
        net.blobs[name].data[...] = value
    caffe.set_random_seed(5)
    net.forward()
    print(kind, net.blobs["top"].data.tobytes().hex())
"""


def test_a_loss_has_the_same_bits_for_any_number_of_threads():
    need("cpp")
    found = []
    for threads in ("1", "2", "5"):
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": threads, "GLOG_minloglevel": "2"}
        command = [sys.executable, "-c", PROGRAM, *(" ".join(loss) for loss in LOSSES)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=300
        )
        found.append(done.stdout)
    assert found[0].count("\n") == len(LOSSES)
    assert found[0] == found[1] == found[2]
