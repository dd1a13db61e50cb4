"""What a training does beside its iterations: mining triplets, measuring held-out images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from caffe_metric.data.mining import mine
from caffe_metric.evaluation.metrics.similarity import unit_rows
from caffe_metric.evaluation.metrics.verification import roc
from caffe_metric.nets import roles
from caffe_metric.support.arrays import read_npy
from caffe_metric.support.errors import UserError
from caffe_metric.support.files import replacing
from caffe_metric.training.snapshots import describe, reserve

# Draws that have nothing to do with those of an iteration.
MINING = 1
# Of held-out images, at most so many meet: all pairs of them are measured.
MOST_HELD_OUT = 5000


def use_groups(layers, triplets="") -> None:
    """Makes the IdentityData layer of a net give groups of triplets; changes the layer.

    triplets: a file of `mine`, or "" for random negatives. Raises UserError.
    """
    layer = reader_of(layers)
    given = roles.python_parameters(layer)
    negatives = int(given.get("num_negatives", 1))
    if triplets:
        mined = read_npy(triplets)
        if mined.ndim != 2 or mined.shape[1] < 3:
            raise UserError(f"{triplets}: shape {list(mined.shape)}: no triplets of `mine`")
        negatives = mined.shape[1] - 2
    rows = given.get("batch_size") or given.get("identities", 8) * given.get("images", 4)
    group = 2 + negatives
    if rows < group:
        raise UserError(f"layer '{layer.name}': {rows} rows hold no group of {group}")
    given.update(layout="TRIPLETS", num_negatives=negatives, batch_size=rows // group * group)
    for name in ("identities", "images", "triplets"):
        given.pop(name, None)
    if triplets:
        given["triplets"] = str(triplets)
    layer.python_param.param_str = json.dumps(given)


def reader_of(layers):
    """The IdentityData layer that mined triplets go through. Raises UserError."""
    for layer in layers:
        if roles.kind(layer) == "IdentityData":
            return layer
    raise UserError("mined triplets need an IdentityData layer that reads the images")


class Miner:
    """Mines triplets by the weights of the moment, every so many iterations.

    The file PREFIX_triplets_iter_N.npy is a function of the seed, the iteration and the weights.
    """

    def __init__(self, job, layers, layer, embed):
        self._job, self._layer, self._embed = job, layer, embed
        given = roles.python_parameters(reader_of(layers))
        self._negatives = int(given.get("num_negatives", 1))
        triplet = [one for one in layers if roles.kind(one) == "TripletLoss"]
        self._margin = roles.settings(triplet[0]).margin if triplet else 0.2
        self.newest = None

    def go_on(self, path) -> None:
        """With triplets that were mined before."""
        self._layer.use_triplets(path)
        self.newest = path

    def __call__(self, iteration) -> str:
        """Mines, and lets the layer go on with what was found; a line that tells."""
        rng = np.random.default_rng([self._job.seed, MINING, iteration])
        labels = self._embed.labels
        triplets = mine(self._embed(), labels, "semihard", self._margin, self._negatives, rng=rng)
        if not len(triplets):
            return f"iteration {iteration}: mined no triplets; the ones before stay"
        path = mined_path(self._job.prefix, iteration)
        try:
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, triplets.astype(np.int32))
        except (OSError, UserError) as error:
            return (
                f"iteration {iteration}: no mined triplets written ({error}); the ones before stay"
            )
        self.go_on(path)
        return f"iteration {iteration}: mined {len(triplets)} triplets for {len(labels)} images"


def mined_path(prefix, iteration) -> Path:
    return Path(f"{prefix}_triplets_iter_{iteration}.npy")


def recorded(path) -> dict:
    """What a snapshot's record says of the triplets that it goes on with."""
    return {"file": path.name, **describe(path)} if path else {}


class Evaluator:
    """Measures the AUC of held-out images, and keeps the best model as PREFIX_best.caffemodel.

    size: bytes of a model. unwritten: why the best one could not be written, "" where it was.
    """

    def __init__(self, job, net, embed, size):
        self._net, self._embed = net, embed
        self._reserved, self._size = Path(job.aside, "reserved"), size
        self.unwritten = ""
        self._model = Path(f"{job.prefix}_best.caffemodel")
        self._note = Path(f"{job.prefix}_best.json")
        self._best, self._run = -1.0, job.run
        if self._note.is_file():
            note = json.loads(self._note.read_text())
            if note["run"] == job.run:  # a resumed training goes on with its best
                self._best = note["auc"]
        chosen = np.random.default_rng(0).permutation(len(embed.labels))[:MOST_HELD_OUT]
        self._rows = np.sort(chosen)

    def __call__(self, iteration) -> float:
        unit = unit_rows(self._embed()[self._rows])
        labels = self._embed.labels[self._rows]
        upper = np.triu_indices(len(labels), 1)
        same = labels[upper[0]] == labels[upper[1]]
        try:
            auc = roc((unit @ unit.T)[upper], same).auc()
        except ValueError as error:
            raise UserError(f"held-out images: {error}") from error
        if auc > self._best:
            try:
                self._keep(iteration, auc)
                self._best, self.unwritten = auc, ""
            except (OSError, UserError) as error:
                self.unwritten = f"the best model could not be written: {error}"
        return auc

    def _keep(self, iteration, auc):
        reserve(self._reserved, self._size)  # Caffe ends the process where the disk is full
        with replacing(self._model) as path:
            self._net.save(str(path))
        with replacing(self._note) as path:
            note = {"iteration": iteration, "auc": auc, "run": self._run}
            path.write_text(json.dumps(note) + "\n")
