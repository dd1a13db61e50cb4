"""What a solver file says: the net, how long, where snapshots go, which tops tell what."""

from __future__ import annotations

import contextlib
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

from caffe_metric.nets import netfile, roles
from caffe_metric.support.errors import ForeignNetError, UserError


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

    A net that cannot be read gives a plan without reports: Caffe will say what is wrong. Raises
    ForeignNetError for a net of another fork.
    """
    from caffe.proto import caffe_pb2

    solver = netfile.parse(path, caffe_pb2.SolverParameter())
    prefix = solver.snapshot_prefix or str(Path(path).with_suffix(""))
    plan = Plan(solver.max_iter, prefix, solver.net or solver.train_net)
    net = solver.net_param
    if plan.net and not solver.HasField("net_param"):
        try:
            net = netfile.read(str(Path(folder, plan.net)))
        except ForeignNetError:
            raise
        except UserError:
            pass
    for layer in net.layer:
        if not any(rule.HasField("phase") and rule.phase != 0 for rule in layer.include):
            _learn_tops(plan, layer)
    return plan


def _learn_tops(plan, layer):
    row = roles.row_of(layer)
    if row is None:
        return
    plan.counts |= row.counts
    plan.reports.update(zip(layer.top[len(row.tops) :], row.further))
    if row.collapsed is None or not layer.top:
        return
    normalised = "normalization" in roles.parameters(layer)
    if normalised or layer.loss_param.HasField("normalization"):
        return
    with contextlib.suppress(ValueError):  # a bad parameter: Caffe will say so
        value = row.collapsed(roles.settings(layer), len(layer.bottom))
        if not math.isnan(value):
            weight = layer.loss_weight[0] if layer.loss_weight else 1.0
            plan.collapsed[layer.top[0]] = weight * value
