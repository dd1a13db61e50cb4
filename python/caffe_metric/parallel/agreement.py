"""Whether the ranks train the same thing, and whether their weights are still the same."""

from __future__ import annotations

import hashlib
import platform
import time
from pathlib import Path

import numpy as np

import caffe
import caffe_metric
from caffe_metric.nets import roles
from caffe_metric.rules import backend
from caffe_metric.support.errors import UserError

# Of a data file so much is read at each end.
ENDS = 1 << 20
# So long the other ranks wait to be ended by mpirun.
OTHERS_SECONDS = 10.0


def describe(solver_path, plan) -> dict:
    """What ranks have to have in common, by its name."""
    found = {
        "version of caffe-metric": caffe_metric.__version__,
        "version of Python": platform.python_version(),
        "version of NumPy": np.__version__,
        "version of Caffe": getattr(caffe, "__version__", "unknown"),
        "choice of row rules": backend.describe(backend.load(None)),
        f"solver {solver_path}": _digest(plan.solver.SerializeToString(deterministic=True)),
        f"net {plan.net}": _digest(plan.message.SerializeToString(deterministic=True)),
    }
    for layer in plan.layers:
        for path in _sources(layer):
            found[f"file {path} (layer '{layer.name}')"] = _file(path)
    return found


def compare(ranks, mine: dict) -> None:
    """Raises UserError, on all ranks, where a rank differs from rank 0."""
    first, *others = ranks.gather_objects(mine)
    for number, other in enumerate(others, 1):
        for name in {**first, **other}:
            here, there = first.get(name, "none"), other.get(name, "none")
            if here != there:
                _stop(
                    ranks,
                    f"{ranks.name(number)} has another {name} than {ranks.name(0)}: {there}, "
                    f"not {here}",
                )


def compare_weights(ranks, net, iteration: int) -> None:
    """Raises UserError, on all ranks, where the weights of a rank are not those of rank 0."""
    names = [(layer, place) for layer, kept in net.params.items() for place in range(len(kept))]
    digests = np.zeros((len(names), 16), np.uint8)
    for row, (layer, place) in zip(digests, names):
        data = np.ascontiguousarray(net.params[layer][place].data)
        row[...] = np.frombuffer(hashlib.blake2b(data, digest_size=16).digest(), np.uint8)
    first, *others = ranks.gather(digests)
    for number, other in enumerate(others, 1):
        differ = np.flatnonzero((first != other).any(axis=1))
        if len(differ):
            layer, place = names[differ[0]]
            _stop(
                ranks,
                f"iteration {iteration}: the weights of {ranks.name(number)} are not those of "
                f"{ranks.name(0)}, first in blob {place} of layer '{layer}'; stopped",
            )


def _stop(ranks, text):
    """All ranks know it: rank 0 says it, and mpirun ends the others meanwhile."""
    if ranks.rank:
        time.sleep(OTHERS_SECONDS)
    raise UserError(text)


def _digest(data) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _sources(layer) -> list[str]:
    """The files that a layer reads."""
    if roles.kind(layer) == "IdentityData":
        given = roles.python_parameters(layer)
        return [str(given[name]) for name in ("source", "mean_file") if given.get(name)]
    found = [
        getattr(layer, name).source
        for name in ("data_param", "image_data_param", "hdf5_data_param", "window_data_param")
        if layer.HasField(name)
    ]
    return [path for path in (*found, layer.transform_param.mean_file) if path]


def _file(path) -> str:
    """The size of a file and a checksum of both its ends."""
    path = Path(path)
    if path.is_dir():
        path = path / "data.mdb" if (path / "data.mdb").exists() else path
    if path.is_dir():
        return f"a folder of {sum(1 for _ in path.iterdir())}"
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            ends = file.read(ENDS)
            file.seek(max(0, size - ENDS))
            return f"{size} bytes, {_digest(ends + file.read())}"
    except OSError as error:
        return error.strerror
