"""What a training tells while it runs: lines of its log, and how far it is."""

from __future__ import annotations

import datetime
import os
import sys
import time

import numpy as np

# Seconds between two looks of the user.
STATUS_SECONDS = 0.2
# Caffe's default, display: 0, shows nothing; the log gets a line at this many iterations then.
DISPLAY = 100


def log(text, level="I"):
    """A line in the form of Caffe's log."""
    now = datetime.datetime.now()
    sys.stderr.write(f"{level}{now:%m%d %H:%M:%S.%f} {os.getpid():5} train.py:1] {text}\n")
    sys.stderr.flush()


class Teller:
    """Tells of a pycaffe solver at work. rows: images of an iteration."""

    def __init__(self, solver, plan, rows, events):
        self._solver, self._plan, self._rows, self._events = solver, plan, rows, events
        self._net = solver.net
        self._reports = {
            top: self._net.blobs[top] for top in plan.reports if top in self._net.blobs
        }
        self._display = plan.solver.display or DISPLAY
        # Of held-out images, where they are measured.
        self.auc = None
        self.start()

    def start(self):
        """The clock starts here."""
        self._first = self._solver.iter
        self._began = self._shown = time.monotonic()

    def reports(self) -> dict:
        """What the tops report, by top."""
        return {top: float(blob.data) for top, blob in self._reports.items() if blob.count == 1}

    def __call__(self, iteration, loss):
        """After the iteration of this number, from 0, and with this loss."""
        if iteration % self._display == 0:
            self._lines(iteration, loss)
        if time.monotonic() - self._shown > STATUS_SECONDS:
            self.status(loss)

    def status(self, loss):
        """Says how far the training is."""
        self._shown = time.monotonic()
        rate, done = self._rate(), self._solver.iter
        reports = {self._plan.reports[top]: value for top, value in self.reports().items()}
        if self._plan.features in self._net.blobs:
            rows = self._net.blobs[self._plan.features].data
            rows = rows.reshape(len(rows), -1)
            reports["norm"] = float(np.sqrt(np.square(rows, dtype=np.float64).sum(1)).mean())
        if self.auc is not None:
            reports["auc"] = self.auc
        self._events(
            status={
                "iteration": done,
                "max_iter": self._plan.max_iter,
                "loss": loss,
                "reports": reports,
                "images": self._rows * rate,
                "left": (self._plan.max_iter - done) / rate if rate else None,
            }
        )

    def note(self, text):
        log(f"caffe-metric train: {text}")
        self._events(note=text)

    def warn(self, text):
        log(f"caffe-metric train: warning: {text}", "W")
        self._events(warning=text)

    def _rate(self):
        return (self._solver.iter - self._first) / max(1e-9, time.monotonic() - self._began)

    def _lines(self, iteration, loss):
        """As Caffe writes them."""
        log(f"Iteration {iteration} ({self._rate():.6g} iter/s), loss = {loss:.6g}")
        number = 0
        for name in self._net.outputs:
            for value in np.ravel(self._net.blobs[name].data):
                log(f"    Train net output #{number}: {name} = {value:.6g}")
                number += 1
        if hasattr(self._solver, "lr"):
            log(f"Iteration {iteration}, lr = {self._solver.lr:.6g}")
