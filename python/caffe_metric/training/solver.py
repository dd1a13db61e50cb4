"""What a solver file says: the net, how long, where snapshots go, which tops tell what."""

from __future__ import annotations

import contextlib
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf import text_format

from caffe_metric.nets.roles import kind
from caffe_metric.support.errors import UserError


def parse(path, message):
    """Fills a protobuf message from a prototxt file. Raises UserError."""
    try:
        return text_format.Parse(Path(path).read_text(), message)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, text_format.ParseError) as error:
        raise UserError(f"{path}: {error}") from error


@dataclass
class Plan:
    """A solver file, read.

    reports: {name of a top: what it tells}, of the tops that report on our layers.
    collapsed: {name of a loss top: its value when all embeddings are equal}.
    counts: whether a layer keeps an iteration count (MarginInnerProduct).
    """

    max_iter: int
    snapshot_prefix: str
    net: str = ""
    reports: dict = field(default_factory=dict)
    collapsed: dict = field(default_factory=dict)
    counts: bool = False

    def newest_snapshot(self, folder="."):
        """The solver state with the highest iteration. Raises UserError if there is none."""
        prefix = Path(folder, self.snapshot_prefix)
        pattern = re.escape(prefix.name) + r"_iter_(\d+)\.solverstate(\.h5)?"
        files = prefix.parent.iterdir() if prefix.parent.is_dir() else []
        numbered = [
            (int(match[1]), str(file))
            for file in files
            if (match := re.fullmatch(pattern, file.name))
        ]
        if not numbered:
            raise UserError(f"no snapshot {self.snapshot_prefix}_iter_N.solverstate to resume from")
        return max(numbered)[1]


def read_plan(path, folder="."):
    """Reads a solver file and its net; paths in it are relative to `folder`, as for Caffe.

    A net that cannot be read gives a plan without reports: Caffe will say what is wrong.
    """
    from caffe.proto import caffe_pb2

    solver = parse(path, caffe_pb2.SolverParameter())
    prefix = solver.snapshot_prefix or str(Path(path).with_suffix(""))
    plan = Plan(solver.max_iter, prefix, solver.net or solver.train_net)
    net = caffe_pb2.NetParameter()
    if solver.HasField("net_param"):
        net = solver.net_param
    elif plan.net:
        with contextlib.suppress(UserError):
            net = parse(Path(folder, plan.net), net)
    for layer in net.layer:
        if not any(rule.HasField("phase") and rule.phase != 0 for rule in layer.include):
            _learn_tops(plan, layer)
    return plan


_REPORTS = {
    "TripletLoss": ["active", "d_ap", "d_an"],
    "RankHardLoss": ["active"],
    "MarginInnerProduct": ["lambda"],
}


def _learn_tops(plan, layer):
    layer_kind = kind(layer)
    plan.counts |= layer_kind == "MarginInnerProduct"
    plan.reports.update(zip(layer.top[1:], _REPORTS.get(layer_kind, [])))
    if layer_kind != layer.type or not layer.top:
        return  # a Python layer's parameters are in its own text
    weight = layer.loss_weight[0] if layer.loss_weight else 1.0
    if layer_kind == "TripletLoss":
        plan.collapsed[layer.top[0]] = weight * _collapsed_triplet(layer)
    elif layer_kind == "RankHardLoss" and not layer.loss_param.HasField("normalization"):
        # Every pair is a candidate then: neg_num are taken, or as many as the ratios draw.
        rank = layer.rank_param
        drawn = int(rank.neg_num * rank.hard_ratio) + int(rank.neg_num * rank.rand_ratio)
        plan.collapsed[layer.top[0]] = weight * rank.margin * drawn / max(1, rank.neg_num)


def _collapsed_triplet(layer):
    """The loss with all distances zero; NaN where that depends on the batch."""
    param, mined = layer.triplet_loss_param, len(layer.bottom) == 2
    if layer.loss_param.HasField("normalization") or len(layer.bottom) == 4:
        return math.nan
    loss = {0: param.margin, 1: 1.0, 2: math.log(2)}[param.losstype]
    negatives = param.num_negatives if len(layer.bottom) == 1 else 1
    return loss if mined else loss * negatives / 2
