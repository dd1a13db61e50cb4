"""A training in a child process that is watched, asked to end, and whose last words are kept."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from caffe_metric.nets import iteration
from caffe_metric.parallel.world import START_SECONDS, World
from caffe_metric.support.child import fatal_message
from caffe_metric.support.errors import UserError
from caffe_metric.training import snapshots
from caffe_metric.training.job import Job
from caffe_metric.training.log import TrainingLog
from caffe_metric.training.solver import read_plan

# So much of what the child wrote last is kept, to say why it ended.
LAST_BYTES = 1 << 16
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
ALONE = World()


def caffe_tool():
    """The path of the `caffe` tool: $CAFFE_TOOL, beside this Python, or in the PATH."""
    beside = Path(sys.executable).parent / "caffe"
    for candidate in (os.environ.get("CAFFE_TOOL"), beside, shutil.which("caffe")):
        if candidate and os.access(candidate, os.X_OK):
            return str(candidate)
    raise UserError("the tool `caffe` is not in the PATH; `./run build` makes it")


class Training:
    """One training. Its log is appended to a file; `poll` reads what the child tells.

    weights: models to start from, or one. resume: goes on from the newest whole snapshot. state: a
    solver state to go on from instead. seed: of all draws; None: the solver's random_seed, the
    snapshot's, or one at random. threads: BLAS threads; None leaves the environment's choice.
    triplets, mine_every, evaluate (iterations, images): see Job. world: of the ranks that train
    together; timeout: seconds that one waits for another. Use it as a context manager: leaving it
    ends a child that still runs.

    status: the newest of the child's (see `worker`), {} before the first. notes, warnings: lines
    for the user that nobody has taken yet. snapshot: the paths of the newest one. joined: whether
    the other ranks are there.
    """

    def __init__(
        self,
        solver,
        log_path=None,
        weights=None,
        state=None,
        threads=None,
        folder=None,
        resume=False,
        seed=None,
        gpu=None,
        triplets="",
        mine_every=0,
        evaluate=None,
        world=ALONE,
        timeout=600.0,
    ):
        self._folder, self._world = Path(folder or "."), world
        self._patience = max(timeout, START_SECONDS)
        self.joined = world.size == 1
        if world.rank:  # what a training starts from and writes is rank 0's
            log_path, weights, state, resume, seed = os.devnull, [], None, False, 0
        self.plan = read_plan(self._folder / solver, self._folder)
        prefix = Path(self.plan.snapshot_prefix)
        self.log, self.log_path = TrainingLog(), Path(log_path or f"{prefix}.log")
        self.status, self.notes, self.warnings, self.snapshot = {}, [], [], []
        self.seconds, self._error, self._end, self._writing = 0.0, "", "", None
        self._partial, self._events, self._last = b"", b"", b""
        self._stack = contextlib.ExitStack()
        try:
            writes = snapshots.Prefix(self._folder / prefix) if not world.rank else Aside()
            lock = self._stack.enter_context(writes)
            job = self._job(solver, prefix, lock, weights, state, resume, seed, gpu)
            job.rank, job.ranks, job.timeout = world.rank, world.size, timeout
            job.triplets, job.mine_every = str(triplets or job.triplets), mine_every
            if evaluate:
                job.evaluate_every, job.evaluate = evaluate
            self._start(job, lock, threads)
        except BaseException:
            self._stack.close()
            raise

    def _job(self, solver, prefix, lock, weights, state, resume, seed, gpu):
        weights = [weights] if isinstance(weights, (str, Path)) else list(weights or [])
        if not (weights or resume or state or self._world.rank):
            weights = list(self.plan.solver.weights) if hasattr(self.plan.solver, "weights") else []
        for path in [*weights, *([state] if state else [])]:
            if not (self._folder / path).is_file():
                raise UserError(f"{path}: no such file")
        job = Job(str(solver), str(prefix), str(lock.aside.absolute()), 0, uuid.uuid4().hex)
        job.weights, job.gpu, job.command = [str(path) for path in weights], gpu, sys.argv
        if resume:
            found = snapshots.newest_whole(self._folder / prefix, self.notes.append)
            state, job.run = found.file(".solverstate"), found.record["run"]
            job.batches, ranks = found.record.get("batches"), found.record.get("ranks", 1)
            job.more = [str(path.absolute()) for path in found.more()]
            self.notes.append(f"goes on from {state}")
            if ranks != self._world.size:
                self.notes.append(
                    f"the snapshot was written with {ranks} rank{'s' * (ranks > 1)}, "
                    f"{self._world.size} go on: sums are made in another order, the numbers differ "
                    "in their last digits"
                )
            job.triplets = _triplets(found)
            recorded = found.record["seed"]
            if seed not in (None, recorded):
                raise UserError(f"--seed is {seed}, the training began with {recorded}")
            seed = recorded
        if state:
            path = self._folder / state
            path = _fitted(path, self.plan, self._folder, lock.aside)
            job.state, job.model = beside(path, lock.aside)
        if seed is None:
            seed = self.plan.solver.random_seed
        job.seed = seed if seed >= 0 else int.from_bytes(os.urandom(4), "little")
        return job

    def _start(self, job, lock, threads):
        # Lines go to stderr only: glog's own files in /tmp are nobody's business.
        environment = {**os.environ, "GLOG_logtostderr": "1", "GLOG_minloglevel": "0"}
        if threads:
            environment.update(dict.fromkeys(THREADS, str(threads)))
        elif self._world.size > 1 and not {*THREADS} & {*environment}:
            environment.update(dict.fromkeys(THREADS, str(self._world.threads())))
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._stack.enter_context(self.log_path.open("ab", buffering=0))
        self._errors, errors = os.pipe()
        self._told, tell = os.pipe()
        for end in (self._errors, self._told):
            os.set_blocking(end, False)
            self._stack.callback(os.close, end)
        command = [sys.executable, "-m", "caffe_metric.training.worker", job.dumps(), str(tell)]
        self._started = time.monotonic()
        try:
            self._child = subprocess.Popen(
                [*command, str(os.getpid())],
                stdout=errors,
                stderr=errors,
                stdin=subprocess.DEVNULL,
                pass_fds=(tell, lock.descriptor),
                env=environment,
                cwd=self._folder,
            )
        finally:
            os.close(errors)
            os.close(tell)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            # Whoever is interrupted waits for the snapshot, however long an iteration takes.
            self.stop(None if kind in (KeyboardInterrupt, Terminated) else 10)
            self._read()
        finally:
            self._stack.close()

    def stop(self, seconds: float | None = 10):
        """Asks the child to end, with a snapshot, and waits; kills it after so many seconds."""
        if self._child.poll() is None:
            self._child.terminate()
            deadline = None if seconds is None else time.monotonic() + seconds
            try:
                while self._child.poll() is None:
                    if deadline and time.monotonic() > deadline:
                        break
                    self._read()
                    time.sleep(0.05)
            finally:
                self._child.kill()
                self._child.wait()

    def poll(self):
        """Reads what is new; returns whether the child has ended.

        Raises UserError if it failed, with its last words.
        """
        code = self._child.poll()
        self._read()
        if self._error:
            self.stop()
            raise UserError(self._error)
        if code is None:
            self.seconds = time.monotonic() - self._started
            if not self.joined and self.seconds > self._patience:
                self._child.kill()
                raise UserError(f"the other ranks did not come in {self._patience:g} s")
        elif self._end != "done" and not (self._end == "stopped" and self._world.rank):
            raise UserError(self.last_words(code))
        return code is not None

    def _read(self):
        """Takes in what the child wrote: its log, and its events."""
        if self._file.closed:
            return
        for part in _parts(self._errors):
            with contextlib.suppress(OSError):  # a full disk: the training goes on
                self._file.write(part)
            self._last = (self._last + part)[-LAST_BYTES:]
            *lines, self._partial = (self._partial + part).split(b"\n")
            for line in lines:
                self.log.read(line.decode(errors="replace"))
        for part in _parts(self._told):
            *lines, self._events = (self._events + part).split(b"\n")
            for line in lines:
                self._take(**json.loads(line))

    def _take(self, **event):
        ((name, value),) = event.items()
        if name in ("note", "warning"):
            (self.notes if name == "note" else self.warnings).append(value)
        elif name == "error":
            self._error = value
        elif name in ("done", "stopped"):
            self._end = name
        elif name == "writing":
            self._writing = value
        else:
            self._writing = None
            setattr(self, name, value)

    def last_words(self, code):
        """Why the child ended, in one line."""
        text = self._last.decode(errors="replace")
        words = " ".join(fatal_message(text).split())
        if self._writing is not None and code < 0:
            kept = f"; the newest whole one is {self.snapshot[1]}" if self.snapshot else ""
            why = words or f"ended by {signal.Signals(-code).name}"
            return f"iteration {self._writing}: the snapshot could not be written ({why}){kept}"
        if words:
            return words
        if self._end == "stopped":
            return "ended by SIGTERM, with a snapshot"
        if code < 0:
            return f"ended by {signal.Signals(-code).name}"
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return f"exit status {code}: {lines[-1] if lines else 'no output'}"


class Aside:
    """What a rank that writes no snapshots has in the place of snapshots.Prefix: a folder."""

    def __enter__(self):
        self._folder = tempfile.TemporaryDirectory()
        self.aside = Path(self._folder.name)
        self.descriptor = os.open(self.aside, os.O_RDONLY)
        return self

    def __exit__(self, *_):
        os.close(self.descriptor)
        self._folder.cleanup()


class Terminated(BaseException):
    """SIGTERM or SIGHUP has asked this process to end."""


@contextlib.contextmanager
def terminable():
    """Within, SIGTERM and SIGHUP raise Terminated, unless they are ignored."""

    def end(number, frame):
        raise Terminated(signal.Signals(number).name)

    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]
    older = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in older.items():
            signal.signal(number, handler)


def _triplets(snapshot) -> str:
    """The mined triplets that a snapshot goes on with; UserError where they are not whole."""
    noted = dict(snapshot.record.get("triplets") or {})
    if not noted:
        return ""
    path = snapshot.folder / noted.pop("file")
    if not path.is_file() or snapshots.describe(path) != noted:
        raise UserError(f"{path}: not what iteration {snapshot.iteration} was trained with")
    return str(path)


def _parts(descriptor):
    while True:
        try:
            part = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return
        if not part:
            return
        yield part


def _fitted(state, plan, folder, aside):
    """`state`, or a copy that has the blobs which MarginInnerProduct keeps as the net has them."""
    net = str(folder / plan.net)
    if not plan.counts or not plan.net or iteration.fits(str(state), net):
        return state
    copy = aside / Path(state).name
    iteration.fit(str(state), str(copy), net)
    return copy


def beside(state, aside):
    """A solver state and its model, by paths: the state says where it was written, once."""
    from caffe_metric.nets import blobs

    state = Path(state).absolute()
    with blobs.open_state(state) as opened:
        noted = Path(opened.model)
        model = state.parent / noted.name
        if not model.is_file():
            raise UserError(f"{state}: its model {noted.name} is not beside it")
        if not noted.exists() or not noted.samefile(model):
            opened.model = str(model)
            state = aside / f"restored{''.join(state.suffixes[-2:])}"
            opened.save(state)
    return str(state), str(model)
