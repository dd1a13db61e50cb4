"""R ranks with N rows give the numbers of one with R x N rows, over 20 steps.

One net has every loss of the suite, each on a product of its own, so that a start tests them all:
those that are a mean over rows as they are, the others behind GatherBatch. Losses of every
iteration, weights, and the solver's histories, which are sums of the gradients, are compared. The
solver has all that it may do between gradient and update: it accumulates two passes, clips and
decays. What is left out: BatchNorm (it sees the rows of its rank, as it is meant to).
"""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")

from caffe_metric.training.log import read_log
from mpi_case import TRAIN, finish, need_mpi, start, train, weights, write_faces

STEPS, ROWS, PREFIX = 20, 24, "net"
DATA = """
layer {{ name: "data" type: "Python" top: "data" top: "label" param {{ lr_mult: 0 decay_mult: 0 }}
  python_param {{ module: "caffe_metric.layers" layer: "IdentityDataLayer"
    param_str: "{{source: faces.lmdb, layout: PAIRS, batch_size: {rows}, scale: 0.01, "
      "workers: 0}}" }} }}
"""
PRODUCT = """
layer {{ name: "fc_{name}" type: "InnerProduct" bottom: "data" top: "fc_{name}"
  inner_product_param {{ num_output: 6 weight_filler {{ type: "xavier" }} }} }}
"""
GATHER = """
layer {{ name: "all_{name}" type: "Python" bottom: "fc_{name}" bottom: "label"
  top: "all_{name}" top: "label_{name}"
  python_param {{ module: "caffe_metric.layers" layer: "GatherBatchLayer" }} }}
"""
NORM = """
layer {{ name: "unit_{name}" type: "Norm" bottom: "{x}" top: "unit_{name}" }}
"""
LOSS = """
layer {{ name: "{name}" type: "{kind}" bottom: "{x}" bottom: "{y}" top: "{name}" {more} }}
"""
TWIN = """
layer {{ name: "{name}" type: "Python" bottom: "{x}" bottom: "{y}" top: "{name}" loss_weight: 1
  {blobs} python_param {{ module: "caffe_metric.layers" layer: "{kind}Layer"
    param_str: "{{{more}}}" }} }}
"""
MARGIN = """
layer {{ name: "margin_{name}" type: "MarginInnerProduct" bottom: "{x}" bottom: "{y}"
  top: "margin_{name}" {blobs}
  margin_inner_product_param {{ num_output: 8 type: DOUBLE base: 20 gamma: 0.1 lambda_min: 1
    weight_filler {{ type: "xavier" }} {more} }} }}
layer {{ name: "{name}" type: "SoftmaxWithLoss" bottom: "margin_{name}" bottom: "{y}"
  top: "{name}" }}
"""
STILL = "param { lr_mult: 0 decay_mult: 0 } "
CLASSES = 'num_output: 8 weight_filler { type: "xavier" } '
OWN = "own_update: true update_rate: 0.05 update_momentum: 0.9 update_decay: 0.001"

SHARDED = (
    "num_output: 8, weight_filler: {type: xavier}, type: DOUBLE, base: 20, gamma: 0.1, "
    "lambda_min: 1, normalize_features: true, scale: 4, label_smoothing: 0.1, "
    "update_momentum: 0.9, update_decay: 0.001, semihard: true"
)

# Each the mean of what its rows cost by themselves.
BY_ROWS = {
    "a_softmax": (MARGIN, "", "", ""),
    "easy_triplet": (MARGIN, "", "triplet: true", STILL),
    "margin_softmax": (
        LOSS,
        "MarginSoftmaxLoss",
        f"margin_inner_product_param {{ {CLASSES} scale: 4 }}",
        "",
    ),
    "own_update": (
        LOSS,
        "MarginSoftmaxLoss",
        4 * STILL + f"margin_inner_product_param {{ {CLASSES} }} "
        f"margin_softmax_loss_param {{ {OWN} }}",
        "",
    ),
    "sharded": (TWIN, "ShardedMarginSoftmaxLoss", SHARDED, ""),
    "center": (
        LOSS,
        "CenterLoss",
        'center_loss_param { num_output: 8 update: GRADIENT center_filler { type: "xavier" } }',
        "",
    ),
}
# Their rows meet each other.
GATHERED = {
    "semihard": (LOSS, "TripletLoss", "triplet_loss_param { margin: 0.5 }", ""),
    "all": (LOSS, "TripletLoss", "triplet_loss_param { margin: 0.5 mining: ALL }", ""),
    "rank_hard": (LOSS, "RankHardLoss", "rank_param { neg_num: 4 margin: 0.5 }", ""),
    "contrastive": (LOSS, "BatchContrastiveLoss", "", ""),
    "multi_similarity": (
        LOSS,
        "MultiSimilarityLoss",
        "multi_similarity_loss_param { beta: 10 epsilon: -1 }",
        "",
    ),
    "circle": (LOSS, "CircleLoss", "circle_loss_param { gamma: 16 }", ""),
    "sup_con": (LOSS, "SupConLoss", "sup_con_loss_param { temperature: 0.3 }", ""),
    "memory": (
        LOSS,
        "SupConLoss",
        "sup_con_loss_param { temperature: 0.3 } batch_memory_param { rows: 40 }",
        "",
    ),
    "lifted": (LOSS, "LiftedStructureLoss", "", ""),
    "proxy_anchor": (
        LOSS,
        "ProxyAnchorLoss",
        'proxy_anchor_loss_param { num_output: 8 alpha: 8 proxy_filler { type: "xavier" } }',
        "",
    ),
    "center_delta": (
        LOSS,
        "CenterLoss",
        'center_loss_param { num_output: 8 center_filler { type: "xavier" } }',
        "",
    ),
    "sampled": (
        LOSS,
        "MarginSoftmaxLoss",
        4 * STILL + f"margin_inner_product_param {{ {CLASSES} }} "
        f"margin_softmax_loss_param {{ sample_rate: 0.9 {OWN} }}",
        "",
    ),
    "twin": (TWIN, "CircleLoss", "gamma: 16", ""),
}
GROUPS = """
layer { name: "fc_groups" type: "InnerProduct" bottom: "data" top: "fc_groups"
  inner_product_param { num_output: 6 weight_filler { type: "xavier" } } }
layer { name: "groups" type: "TripletLoss" bottom: "fc_groups" top: "groups"
  triplet_loss_param { margin: 0.5 num_negatives: 2 } }
layer { name: "thirds" type: "TripletLoss" bottom: "fc_groups" bottom: "fc_center"
  bottom: "fc_a_softmax" top: "thirds" triplet_loss_param { margin: 0.5 losstype: SOFT } }
"""


def net(rows):
    text = DATA.format(rows=rows)
    for name, (template, kind, more, blobs) in {**BY_ROWS, **GATHERED}.items():
        x, y = f"fc_{name}", "label"
        text += PRODUCT.format(name=name)
        if name in GATHERED:
            text += GATHER.format(name=name)
            x, y = f"all_{name}", f"label_{name}"
        if name in ("semihard", "rank_hard"):
            text += NORM.format(name=name, x=x)
            x = f"unit_{name}"
        text += template.format(name=name, kind=kind, x=x, y=y, more=more, blobs=blobs)
    return text + GROUPS


def write(folder, rows):
    folder.mkdir()
    write_faces(folder)
    (folder / "net.prototxt").write_text(net(rows))
    (folder / "solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.02 lr_policy: "step" gamma: 0.5 stepsize: 10 momentum: 0.9 '
        f"weight_decay: 0.001 iter_size: 2 clip_gradients: 40 max_iter: {STEPS} display: 1 "
        f'snapshot_prefix: "{PREFIX}" random_seed: 3 solver_mode: CPU'
    )
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """{ranks: folder}, trained side by side."""
    need_mpi()
    root = tmp_path_factory.mktemp("mpi")
    folders = {ranks: write(root / str(ranks), ROWS // ranks) for ranks in (1, 2, 3)}
    processes = [start(ranks, folder, *TRAIN) for ranks, folder in folders.items()]
    for process in processes:
        status, _, err = finish(process)
        assert status == 0, err
    return folders


def compare(name, found, wanted):
    scale = max(np.abs(wanted).max(), 0.1)
    assert np.abs(found - wanted).max() <= 2e-5 * scale, name


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
def test_losses_are_those_of_one_rank(trained, ranks):
    one, some = (read_log(trained[number] / f"{PREFIX}.log").train for number in (1, ranks))
    assert {*BY_ROWS, *GATHERED, "groups", "thirds", "loss"} <= {*one}
    for name, (iterations, values) in one.items():
        assert len(iterations) == STEPS
        compare(name, np.array(some[name][1]), np.array(values))


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
def test_weights_and_gradients_are_those_of_one_rank(trained, ranks):
    one, some = (weights(trained[number], STEPS, PREFIX) for number in (1, ranks))
    assert {*one} == {*some}
    # IdentityData counts the batches of all ranks.
    assert some.pop("data/0") == ranks * one.pop("data/0")
    for name, wanted in one.items():
        compare(name, some[name], wanted)


@pytest.mark.slow
def test_the_same_ranks_give_the_same_bits(trained, tmp_path):
    again = write(tmp_path / "again", ROWS // 3)
    status, _, err = train(3, again)
    assert status == 0, err
    for suffix in ("caffemodel", "solverstate"):
        name = f"{PREFIX}_iter_{STEPS}.{suffix}"
        assert (again / name).read_bytes() == (trained[3] / name).read_bytes()
