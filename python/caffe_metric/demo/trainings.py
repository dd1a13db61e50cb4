"""The three trainings, side by side, each with one BLAS thread: two cores are best used so."""

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

# name: folder of its solver.prototxt and net.prototxt, in a checkout or an installed package
EXAMPLES = {
    "triplet": Path("examples/01_triplet"),
    "rank_hard": Path("examples/02_rank_hard"),
    "margin": Path("examples/03_margin"),
}


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


def train_all(root, folder, databases, seed=None, force=False, progress=None):
    """Trains what is not trained already. Returns {name: Trained}.

    root: the folder that `EXAMPLES` are in; folder: for nets, logs, models and notes; databases:
    {name: fingerprint}, of those in that folder.
    seed: instead of the solver files' random_seed. A training is used again if its solver, net,
    data and Caffe are the same as then. Raises UserError.
    """
    jobs = {
        name: _Job(name, root / example, folder.resolve(), databases, seed)
        for name, example in EXAMPLES.items()
    }
    missing = [job for job in jobs.values() if force or not job.is_done()]
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(progress or Progress())
        for job in missing:
            job.start(stack)
        running = list(missing)
        while running:
            running = [job for job in running if not job.training.poll()]
            progress.show("   ".join(map(_brief, missing)))
            time.sleep(0.1 if running else 0)
    for job in missing:
        job.keep()
    return {name: job.result(reused=job not in missing) for name, job in jobs.items()}


def _brief(job):
    status = job.training.status
    loss = status.get("loss")
    text = f"{job.name} {100 * status.get('iteration', 0) // job.plan.max_iter}%"
    return text if loss is None else f"{text} loss {loss:.3g}"


class _Job:
    def __init__(self, name, example, folder, databases, seed):
        self.name = name
        self.solver, self.net = folder / f"{name}_solver.prototxt", folder / f"{name}_net.prototxt"
        self.net.write_text(_moved((example / "net.prototxt").read_text(), folder))
        solver = _moved((example / "solver.prototxt").read_text(), folder)
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
