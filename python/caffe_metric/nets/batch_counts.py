"""Whether IdentityData may keep the number of its batch in a blob, under the `caffe` tool.

A Python layer cannot set the learning rate of its blob, nor see its own prototxt. Where that has
no `param { lr_mult: 0 decay_mult: 0 }` Caffe asks all that reads the tops for their gradient, and
its own losses abort when they are asked for that of labels. The tool's command line names the net.
"""

from __future__ import annotations

from pathlib import Path

from caffe_metric.nets import netfile, roles
from caffe_metric.nets.phases import TRAIN, included
from caffe_metric.support.errors import UserError

# They take a number for each row, and do not mind when they are asked for its gradient.
_PATIENT = ("Accuracy", "ContrastiveLoss")


def bears_blob(param_str: str) -> bool:
    """Whether a net that is run by the tool bears the blob of the layer with these parameters.

    True where there is no tool around this interpreter, or its net cannot be read.
    """
    net = _net_of(_command_line())
    return net is None or _bears(net, param_str)


def _bears(net, param_str) -> bool:
    names = {
        layer.name
        for layer in net.layer
        if layer.python_param.layer == "IdentityDataLayer"
        and layer.python_param.param_str == param_str
    }
    same = [layer for layer in net.layer if layer.name in names]
    if any(layer.param for layer in same):
        return True
    return all(map(roles.counts_batches, same)) and not _is_asked(net, same)


def _is_asked(net, readers) -> bool:
    """Whether labels of these readers meet a layer that aborts when asked for their gradient."""
    blobs = {top for layer in readers for top in layer.top}
    for layer in net.layer:
        if not included(layer, TRAIN) or not blobs.intersection(layer.bottom):
            continue
        if roles.row_of(layer) is None and layer.type not in _PATIENT:
            taken = roles.bottom_roles(layer)
            if any(layer.bottom[place] in blobs for place in taken if place < len(layer.bottom)):
                return True
        blobs.update(layer.top)
    return False


def _command_line() -> list[str]:
    """Of this process, where the system tells; it is Caffe's tool's, or Python's."""
    try:
        return Path("/proc/self/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def _net_of(command: list[str]):
    """The net that a command line of the `caffe` tool names, None where it is none of it."""
    from caffe.proto import caffe_pb2

    if not command or not Path(command[0]).name.startswith("caffe"):
        return None
    given = _flags(command[1:])
    try:
        if "solver" in given:
            solver = netfile.parse(given["solver"], caffe_pb2.SolverParameter())
            for name in ("train_net_param", "net_param"):
                if solver.HasField(name):
                    return getattr(solver, name)
            return netfile.read(solver.train_net or solver.net)
        return netfile.read(given["model"]) if "model" in given else None
    except UserError:
        return None  # Caffe says what is wrong


def _flags(words) -> dict[str, str]:
    """The values of gflags: `-name value`, `--name=value`."""
    found = {}
    for word, following in zip(words, [*words[1:], ""]):
        if word.startswith("-"):
            name, equals, value = word.lstrip("-").partition("=")
            found[name] = value if equals else following
    return found
