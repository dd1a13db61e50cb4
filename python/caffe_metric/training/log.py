"""The log of `caffe train`, as numbers."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

_NUMBER = r"([-+]?(?:nan|inf|\d[\d.]*(?:e[-+]?\d+)?))"
_ITERATION = re.compile(r"\] Iteration (\d+)")
_LOSS = re.compile(r"\] Iteration \d+(?: \(.*\))?, loss = " + _NUMBER, re.IGNORECASE)
_RATE = re.compile(r"\] Iteration \d+, lr = " + _NUMBER, re.IGNORECASE)
_TEST = re.compile(r"\] Iteration \d+, Testing net \(#(\d+)\)")
_OUTPUT = re.compile(r"\] +(Train|Test) net output #(\d+): (\S+) = " + _NUMBER, re.IGNORECASE)
_START = re.compile(r"\] caffe-metric train: starts at iteration (\d+)")
_WARNING = re.compile(r"\] caffe-metric train: warning: (.*)")
_SNAPSHOT = re.compile(r"\] Snapshotting .*?(\S+\.(?:caffemodel|solverstate)\S*)")


@dataclass
class TrainingLog:
    """Curves: {name: ([iterations], [values])}, filled line by line.

    train holds "loss" (Caffe's smoothed total), "lr", and each train net output by its blob's
    name; test holds the test nets' outputs. An output whose name is the total's is "loss output".
    A log may hold several runs: one that starts at an iteration which is there already takes the
    place of what followed.
    """

    train: dict = field(default_factory=dict)
    test: dict = field(default_factory=dict)
    iteration: int = 0
    snapshots: list = field(default_factory=list)
    warnings: list = field(default_factory=list)
    done: bool = False
    bad: tuple | None = None  # the first (iteration, name, value) that is not finite
    _testing: int = 0

    def read(self, line):
        """Takes one line in; lines that say nothing of the training are ignored."""
        if found := _START.search(line):
            self._restart(int(found[1]))
        elif found := _WARNING.search(line):
            self.warnings.append(found[1])
            return
        if found := _ITERATION.search(line):
            self.iteration = int(found[1])
        if found := _LOSS.search(line):
            self._add(self.train, "loss", found[1])
        elif found := _RATE.search(line):
            self._add(self.train, "lr", found[1])
        elif found := _TEST.search(line):
            self._testing = int(found[1])
        elif found := _OUTPUT.search(line):
            self._output(*found.groups())
        elif found := _SNAPSHOT.search(line):
            self.snapshots.append(found[1])
        elif "] Optimization Done." in line:
            self.done = True

    def _restart(self, iteration):
        """Forgets what an earlier run said from this iteration on."""
        self.done, self.bad, self.iteration = False, None, iteration
        self.warnings.clear()
        for curves in (self.train, self.test):
            for name, (iterations, values) in list(curves.items()):
                kept = sum(one < iteration for one in iterations)
                curves[name] = iterations[:kept], values[:kept]
                if not kept:
                    del curves[name]

    def _output(self, phase, number, name, value):
        if phase == "Train":
            curves = self.train
            name = "loss output" if name == "loss" else name
        else:
            curves = self.test
            name = f"{name} (net {self._testing})" if self._testing else name
        iterations = curves.get(name, ([],))[0]
        if iterations and iterations[-1] == self.iteration:
            name = f"{name} #{number}"  # a blob of several numbers
        self._add(curves, name, value)

    def _add(self, curves, name, value):
        value = float(value)
        iterations, values = curves.setdefault(name, ([], []))
        iterations.append(self.iteration)
        values.append(value)
        if not math.isfinite(value) and self.bad is None:
            self.bad = self.iteration, name, value

    def last(self, name, default=None):
        """The newest value of a training curve."""
        return self.train[name][1][-1] if name in self.train else default


def read_log(path):
    """The TrainingLog of a file."""
    log = TrainingLog()
    with Path(path).open(errors="replace") as file:
        for line in file:
            log.read(line)
    return log
