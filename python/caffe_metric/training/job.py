"""What the parent of a training tells its child, and the child its parent."""

from __future__ import annotations

import dataclasses
import json
import os


@dataclasses.dataclass
class Job:
    """One training, as `caffe-metric train` was asked for it. Paths are relative to the folder.

    weights: models to start from, in order. state, model: the solver state to go on from, and its
    model; more: the files of layers that keep weights themselves. seed: of all draws. run: names
    the training, through all its resumptions. aside: the folder where snapshots are written before
    they are whole. triplets: a file of `mine` that IdentityData draws from; mine_every: iterations
    between two that the training mines itself. evaluate: held-out images, on which an AUC is
    measured every evaluate_every iterations.
    rank: of so many `ranks` that train together, `timeout` the seconds that one waits for another.
    batches: that all ranks have read so far, None where no record tells.
    """

    solver: str
    prefix: str
    aside: str
    seed: int
    run: str
    weights: list = dataclasses.field(default_factory=list)
    state: str = ""
    model: str = ""
    gpu: int | None = None
    triplets: str = ""
    mine_every: int = 0
    evaluate: str = ""
    evaluate_every: int = 0
    command: list = dataclasses.field(default_factory=list)
    rank: int = 0
    ranks: int = 1
    timeout: float = 0.0
    batches: int | None = None
    more: list = dataclasses.field(default_factory=list)

    def dumps(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def loads(cls, text: str) -> Job:
        return cls(**json.loads(text))


class Events:
    """Writes events to a pipe: lines of JSON, each with one of these keys.

    note: a line for the user. warning: another. status: how far it is. snapshot: the paths of one.
    joined: the other ranks are there. error: why it failed. done: it reached its last iteration.
    stopped: it was asked to end before.
    """

    def __init__(self, descriptor: int):
        self._descriptor = descriptor

    def __call__(self, **event) -> None:
        # One write a line: a pipe never mixes two of up to 4 KiB.
        os.write(self._descriptor, (json.dumps(event) + "\n").encode())
