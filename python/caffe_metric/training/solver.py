"""What a solver file says: the net, how long, where snapshots go, which tops tell what."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf import text_format

from caffe_metric.nets import netfile, roles
from caffe_metric.nets.phases import included
from caffe_metric.suite import FEATURES
from caffe_metric.support.errors import ForeignNetError, UserError

TRAIN = 0
# Caffe writes this many gradients' histories into a solver state.
HISTORIES = {"Adam": 2, "AdaDelta": 2}


@dataclass
class Plan:
    """A solver file, read.

    reports: {name of a top: what it tells}, of the tops that report on our layers.
    collapsed: {name of a loss layer: its weighted value when all embeddings are equal}.
    softmax: {name of a softmax loss layer: (its logits' blob, "" where it makes them; its weight)}.
    margins: those of them whose logits have a margin: a loss of ln C is no chance there.
    features: the blob whose rows are the embeddings, before a Norm.
    counts: whether a layer keeps an iteration count (MarginInnerProduct).
    solver, message, layers: the file's SolverParameter, its NetParameter, and of that the layers in
    TRAIN. unread: why the net's file could not be read, "" where it could.
    """

    max_iter: int
    snapshot_prefix: str
    net: str = ""
    reports: dict = field(default_factory=dict)
    collapsed: dict = field(default_factory=dict)
    softmax: dict = field(default_factory=dict)
    margins: set = field(default_factory=set)
    features: str = ""
    counts: bool = False
    solver: object = None
    message: object = None
    layers: list = field(default_factory=list)
    unread: str = ""

    def write_net(self, solver, path):
        """Writes the net, as its layers are now, and makes a SolverParameter read it there."""
        Path(path).write_text(text_format.MessageToString(self.message))
        name = "train_net" if solver.train_net or solver.HasField("train_net_param") else "net"
        for field_name in ("net_param", "train_net_param"):
            solver.ClearField(field_name)
        setattr(solver, name, str(path))


def read_solver(path):
    """The SolverParameter of a file. Raises UserError."""
    from caffe.proto import caffe_pb2

    return netfile.parse(path, caffe_pb2.SolverParameter())


def read_plan(path, folder="."):
    """Reads a solver file and its net; paths in it are relative to `folder`, as for Caffe.

    A net that cannot be read gives a plan without reports: Caffe will say what is wrong. Raises
    ForeignNetError for a net of another fork.
    """
    from caffe.proto import caffe_pb2

    solver = read_solver(path)
    plan = Plan(solver.max_iter, _prefix(solver, path, folder), solver.net or solver.train_net)
    plan.solver = solver
    plan.message = caffe_pb2.NetParameter()
    for name in ("train_net_param", "net_param"):
        if solver.HasField(name):
            plan.message = getattr(solver, name)
            if plan.message.layers:
                raise UserError(
                    f"{path}: {name} has `layers`, which Caffe reads from a file only: name the "
                    "file by `net`"
                )
    if plan.net:
        try:
            plan.message = netfile.read(str(Path(folder, plan.net)))
        except ForeignNetError:
            raise
        except UserError as error:
            plan.unread = str(error)
    plan.layers = [layer for layer in plan.message.layer if included(layer, TRAIN)]
    for layer in plan.layers:
        _learn_tops(plan, layer)
    return plan


def _prefix(solver, path, folder):
    """As Caffe has it: the solver file's name where none is given, or inside a given folder."""
    plain = Path(path).with_suffix("")
    if not solver.snapshot_prefix:
        return str(plain)
    if Path(folder, solver.snapshot_prefix).is_dir():
        return str(Path(solver.snapshot_prefix, plain.name))
    return solver.snapshot_prefix


def _learn_tops(plan, layer):
    weight = layer.loss_weight[0] if layer.loss_weight else 1.0
    if layer.type == "SoftmaxWithLoss" and layer.bottom:
        plan.softmax[layer.name] = layer.bottom[0], weight
        makers = [other for other in plan.layers if layer.bottom[0] in other.top]
        if any((found := roles.row_of(maker)) and found.counts for maker in makers):
            plan.margins.add(layer.name)
    row = roles.row_of(layer)
    if row is None:
        return
    plan.counts |= row.counts
    plan.reports.update(zip(layer.top[len(row.tops) :], row.further))
    if row.head and not plan.features and row.roles(len(layer.bottom))[:1] == (FEATURES,):
        plan.features = _before_norm(plan.layers, layer)
    if row.counts and row.loss:
        plan.softmax[layer.name] = "", weight
        plan.margins.add(layer.name)
    if row.collapsed is None:
        return
    normalised = "normalization" in roles.parameters(layer)
    if normalised or layer.loss_param.HasField("normalization"):
        return
    with contextlib.suppress(ValueError):  # a bad parameter: Caffe will say so
        value = row.collapsed(roles.settings(layer), len(layer.bottom))
        if not math.isnan(value):
            plan.collapsed[layer.name] = weight * value


def _before_norm(layers, head):
    """The blob that `head` reads, or that the Norm before it does: rows as the net made them."""
    blob = head.bottom[0]
    for layer in layers:
        if roles.kind(layer) == "Norm" and blob in layer.top and blob not in layer.bottom:
            return layer.bottom[0]
    return blob
