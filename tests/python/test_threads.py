"""The bits of a loss and its gradient do not depend on the number of threads.

Rows are worked on side by side, each by one thread, and a matrix product is divided into blocks of
rows in a way of its own: BLAS adds up in another order with another number of threads. 700 rows are
more than BLAS adds up in one go, and fewer than two such goes: where it divides by threads. 70
columns are two parts of a gradient that is divided by columns.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from harness import need

LOSSES = [
    ("TripletLoss", "triplet_loss_param { mining: ALL margin: 0.2 }"),
    ("TripletLoss", "triplet_loss_param { mining: SEMIHARD distance: L2 }"),
    ("TripletLoss", "triplet_loss_param { mining: SEMIHARD distance: LP p: 1 margin: 0.2 }"),
    ("RankHardLoss", "rank_param { neg_num: 4 }"),
    ("SupConLoss", ""),
    ("CircleLoss", ""),
    ("MultiSimilarityLoss", ""),
    ("BatchContrastiveLoss", "batch_contrastive_loss_param { negative_margin: 1.4 }"),
    ("LiftedStructureLoss", ""),
    ("LiftedStructureLoss", "lifted_structure_loss_param { form: GENERALIZED }"),
    ("SupConLoss", "batch_memory_param { rows: 300 }"),
    (
        "ProxyAnchorLoss",
        "proxy_anchor_loss_param { num_output: 175 proxy_filler { type: 'gaussian' } }",
    ),
]

PROGRAM = """
import sys
import caffe
import numpy as np
from caffe_metric.nets import one_layer

rng = np.random.default_rng(1)
scattered = rng.normal(size=(700, 70)).astype(np.float32)
of = np.arange(700) // 140
near = rng.normal(size=(5, 70))[of] + 1e-3 * rng.normal(size=(700, 70))
batches = [(scattered, np.arange(700) // 4), (near.astype(np.float32), of)]
for line in sys.argv[1:]:
    kind, _, body = line.partition(" ")
    for x, labels in batches:
        bottoms = {"x": x, "y": labels.astype(np.float32)}
        ends = 'bottom: "x" bottom: "y" top: "top"'
        layer = 'layer { name: "layer" type: "%s" %s %s }' % (kind, ends, body)
        net = one_layer.build("force_backward: true " + one_layer.inputs(bottoms) + layer)
        for name, value in bottoms.items():
            net.blobs[name].data[...] = value
        caffe.set_random_seed(5)
        for _ in range(2 if "memory" in body else 1):
            net.forward()
        net.backward()
        gradient = net.blobs["x"].diff
        assert gradient.any() or not net.blobs["top"].data, kind
        print(kind, net.blobs["top"].data.tobytes().hex(), gradient.tobytes().hex())
"""


@pytest.mark.slow
def test_a_loss_and_its_gradient_have_the_same_bits_for_any_number_of_threads():
    need("cpp")
    found = []
    for threads in ("1", "2", "5"):
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": threads, "GLOG_minloglevel": "2"}
        command = [sys.executable, "-c", PROGRAM, *(" ".join(loss) for loss in LOSSES)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=300
        )
        found.append(done.stdout)
    assert found[0].count("\n") == 2 * len(LOSSES)
    assert found[0] == found[1] == found[2]
