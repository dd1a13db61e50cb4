"""The trainings, some side by side, each with one BLAS thread."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import re
import time
from pathlib import Path

from caffe_metric.support.files import replacing
from caffe_metric.support.progress import Progress
from caffe_metric.training.log import read_log
from caffe_metric.training.process import Training, caffe_tool
from caffe_metric.training.solver import Plan, read_plan

TOGETHER = 3  # two cores are best used so


@dataclasses.dataclass
class Trained:
    """A finished training."""

    name: str
    net: Path
    weights: Path
    log: object  # its TrainingLog
    plan: Plan
    seconds: float
    reused: bool
    warnings: list


def train_all(recipes, folder, databases, seed=None, force=False, progress=None, together=TOGETHER):
    """Trains what is not trained already. Returns {name: Trained}.

    recipes: of recipes.py; folder: for nets, logs, models and notes; databases: {name:
    fingerprint}, of those in that folder.
    seed: instead of the solver files' random_seed. A training is used again if its solver, net,
    data and Caffe are the same as then. together: so many at a time. Raises UserError.
    """
    jobs = [_Job(recipe, folder.resolve(), databases, seed) for recipe in recipes]
    missing = [job for job in jobs if force or not job.is_done()]
    waiting, running = list(missing), []
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(progress or Progress())
        while waiting or running:
            while waiting and len(running) < together:
                running.append(waiting.pop(0))
                running[-1].start(stack)
            for job in [job for job in running if job.training.poll()]:
                running.remove(job)
                job.keep()
            progress.show("   ".join(map(_brief, running)))
            time.sleep(0.1 if running else 0)
    return {job.name: job.result(reused=job not in missing) for job in jobs}


def _brief(job):
    status = job.training.status
    loss = status.get("loss")
    text = f"{job.name} {100 * status.get('iteration', 0) // job.plan.max_iter}%"
    return text if loss is None else f"{text} loss {loss:.3g}"


class _Job:
    def __init__(self, recipe, folder, databases, seed):
        self.name = name = recipe.name
        self.solver, self.net = folder / f"{name}_solver.prototxt", folder / f"{name}_net.prototxt"
        self.net.write_text(_moved(recipe.net, folder))
        solver = _moved(recipe.solver, folder)
        solver = re.sub(r"(?m)^net:.*$", f'net: "{self.net}"', solver)
        if seed is not None:
            solver = re.sub(r"(?m)^random_seed:.*$", f"random_seed: {seed}", solver)
        self.solver.write_text(solver)
        self.plan = read_plan(self.solver)
        self.log_path, self.note = folder / f"{name}.log", folder / f"{name}.json"
        self.weights = Path(f"{self.plan.snapshot_prefix}_iter_{self.plan.max_iter}.caffemodel")
        self.fingerprint = _fingerprint(self.solver, self.net, databases)

    def _kept(self):
        with contextlib.suppress(OSError, ValueError):
            return json.loads(self.note.read_text())
        return {}

    def is_done(self):
        whole = self.weights.exists() and self.log_path.exists()
        return whole and self._kept().get("fingerprint") == self.fingerprint

    def start(self, stack):
        self.note.unlink(missing_ok=True)
        self.training = stack.enter_context(Training(self.solver, self.log_path, threads=1))

    def keep(self):
        kept = {"fingerprint": self.fingerprint, "seconds": round(self.training.seconds, 1)}
        with replacing(self.note) as path:
            path.write_text(json.dumps(kept))

    def result(self, reused):
        log = read_log(self.log_path)
        seconds = self._kept()["seconds"]
        return Trained(
            self.name, self.net, self.weights, log, self.plan, seconds, reused, log.warnings
        )


def _moved(text, folder):
    """An example's prototxt, with what it reads and writes in another folder."""
    return text.replace('"build/demo/', f'"{folder}/')


def _fingerprint(solver, net, databases):
    """Of all that a training depends on: its files, its data, the Caffe that runs it."""
    digest = hashlib.sha256()
    net_text = net.read_text()
    for text in (solver.read_text(), net_text):
        digest.update(text.encode())
    for name, fingerprint in databases.items():
        if name in net_text:
            digest.update(fingerprint.encode())
    for file in _caffe_files():
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _caffe_files():
    """The tool, and the libcaffe that was built with pycaffe."""
    files = [Path(caffe_tool())]
    pycaffe = importlib.util.find_spec("caffe")
    if pycaffe and pycaffe.origin:
        for module in sorted(Path(pycaffe.origin).parent.glob("_caffe*.so")):
            files += sorted(module.resolve().parent.glob("libcaffe.so.*"))
    return files
