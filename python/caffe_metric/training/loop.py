"""The training itself: pycaffe's solver, an iteration at a time.

Every iteration starts from a random state that is a function of the seed and the iteration, so
that a training which was killed and resumed goes the same way as one that was not.
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import numpy as np
from google.protobuf import text_format

import caffe
from caffe_metric.nets import batch_norm, blobs, roles
from caffe_metric.parallel.ranks import here
from caffe_metric.parallel.shards import Shards
from caffe_metric.support.errors import UserError
from caffe_metric.training import extras, position, snapshots, start
from caffe_metric.training.embedding import EmbeddingNet
from caffe_metric.training.faults import NotFinite, is_finite, locate
from caffe_metric.training.solver import HISTORIES, read_plan
from caffe_metric.training.telling import Teller, log
from caffe_metric.training.warnings import Watch

# Seconds between two tries at a snapshot that failed.
RETRY_SECONDS = 30.0


def random_state(seed: int, iteration: int) -> int:
    """What Caffe's generator is seeded with at an iteration: 32 bits."""
    return int(np.random.SeedSequence([seed, iteration]).generate_state(1)[0])


class Loop:
    """One training of a Job. `asked` gets the signals that ask it to end."""

    # Of several processes that train together, see parallel/loop.py.
    rank, ranks = 0, 1

    def __init__(self, job, events, asked):
        self.job, self.events, self.asked = job, events, asked
        self.plan = read_plan(job.solver)
        self.settings = self.plan.solver
        first = 0
        if job.state:
            with blobs.open_state(job.state) as state:
                first = state.iteration
        self.batches = first * self._forwards
        self._given = self.batches * self.ranks if job.batches is None else job.batches
        self._use_device()
        log(
            f"caffe-metric train: starts at iteration {first} of {self.plan.max_iter}, "
            f"seed {job.seed}: {' '.join(job.command)}"
        )
        self.solver = self._solver()
        self.net = self.solver.net
        self._names = list(self.net._layer_names)
        self.tell = Teller(self.solver, self.plan, self._rows(), events)
        if self.plan.unread:
            self.tell.warn(f"nothing of the net is watched: {self.plan.unread}")
        if text := batch_norm.complaint(self.plan.layers, self.plan.max_iter):
            self.tell.warn(text)
        self._start()
        self._look()
        self._add_extras()
        self._saved, self._retry, self._loss = first if job.state else None, 0.0, None

    def run(self) -> None:
        """Trains to the last iteration, or until it is asked to end. Raises UserError."""
        self.tell.start()
        every, last = self.settings.snapshot, self.plan.max_iter
        while self.solver.iter < last and not self.asked:
            self._do_extras()
            self._step()
            due = every and self.solver.iter % every == 0
            if due or (self._retry and time.monotonic() > self._retry):
                self._snapshot()
        self._end()

    @property
    def _forwards(self):
        return max(1, self.settings.iter_size)

    @property
    def _histories(self):
        return HISTORIES.get(self.settings.type, 1)

    # --- Before the first iteration ---------------------------------------------------------------

    def _use_device(self):
        gpu, settings = self.job.gpu, self.settings
        if gpu is None and settings.HasField("solver_mode") and settings.solver_mode == 1:
            gpu = settings.device_id
        if gpu is None:
            caffe.set_mode_cpu()
        else:
            caffe.set_device(gpu)
            caffe.set_mode_gpu()

    def _solver(self):
        """The solver of the file, but for what this loop does itself."""
        own = type(self.settings)()
        own.CopyFrom(self.settings)
        for name in ("snapshot", "display", "weights"):
            if name in own.DESCRIPTOR.fields_by_name:
                own.ClearField(name)
        own.snapshot_prefix = str(Path(self.job.aside, Path(self.job.prefix).name))
        own.snapshot_after_train = False  # `solve` is called for the last test only
        own.random_seed = self.job.seed % 2**31
        if self.job.gpu is not None:
            own.device_id = self.job.gpu
        self._change_net(own)
        path = Path(self.job.aside, "solver.prototxt")
        path.write_text(text_format.MessageToString(own))
        return caffe.get_solver(str(path))

    def _change_net(self, own):
        """Makes the solver read the net with what a resumed training has to change in it."""
        before = [layer.SerializeToString() for layer in self.plan.layers]
        if self.job.triplets or self.job.mine_every:
            # A model holds its layers' parameters: what was mined is told to the layer instead.
            extras.use_groups(self.plan.layers, "" if self.job.mine_every else self.job.triplets)
        position.give_up_blobs(self.plan.message, self.job.model)
        for layer in self.plan.layers:
            if roles.counts_batches(layer) and not layer.param:
                # The count is not learned.
                layer.param.add(lr_mult=0, decay_mult=0)
        position.shift_counts(self.plan.layers, self.batches, self._given)
        place = self._given // self.ranks, self.job.aside, self.rank, self.ranks
        position.rotate_lists(self.plan.layers, *place)
        if before != [layer.SerializeToString() for layer in self.plan.layers]:
            self.plan.write_net(own, Path(self.job.aside, "net.prototxt"))

    def _start(self):
        """Loads what the training starts from, and sets its data layers."""
        job, layers = self.job, self.plan.layers
        self._shards = Shards(self.net, here())
        if job.state:
            start.check_state(self.net, layers, job.state, job.model, self._histories)
            self.solver.restore(job.state)
            self._shards.read(job.more)
        for path in job.weights:
            self._load(path)
        for place in position.places(layers, self._given // self.ranks, self.ranks):
            self.tell.note(place.text)
            number = self._names.index(place.layer)
            for _ in range(place.batches):
                if self.asked:
                    return
                self.net._forward(number, number)

    def _load(self, path):
        """Starts from a model."""
        layers = self.plan.layers
        keeps = {layer.name: roles.state_blobs(layer) for layer in layers}
        counting = {layer.name for layer in layers if (row := roles.row_of(layer)) and row.counts}
        readers = (*position.READERS, "IdentityData")
        fresh = [layer.name for layer in layers if roles.kind(layer) in readers]
        for name in self._shards.read_model(path):
            self.tell.note(f"{path}: fills the classes of '{name}'")
        fresh += self._shards.names
        for line in start.load_weights(self.net, path, self.job.aside, keeps, counting, fresh):
            self.tell.note(line)

    def _rows(self):
        """Images of an iteration."""
        for place in range(len(self._names)):
            tops = self.net._top_ids(place)
            if len(tops) and not len(self.net._bottom_ids(place)):
                return self.net._blobs[tops[0]].shape[0] * self._forwards
        return 0

    def _look(self):
        """Notes which blobs tell what, and looks in before every forward and every update."""
        net, plan = self.net, self.plan
        weights = list(net._blob_loss_weights)
        self._weighted = [(weight, net._blobs[i]) for i, weight in enumerate(weights) if weight]
        self._losses = {}
        for name in {**plan.collapsed, **plan.softmax}:
            tops = net._top_ids(self._names.index(name)) if name in self._names else []
            if len(tops):
                self._losses[name] = weights[tops[0]], net._blobs[tops[0]]
        classes = {}
        for name in filter(self._losses.get, plan.softmax):
            logits, weight = plan.softmax[name]
            count = net.blobs[logits].shape[1] if logits else net.params[name][0].shape[0]
            classes[name] = count, weight
        self.watch = Watch(plan.collapsed, classes, plan.reports, plan.margins)
        rows = {layer.name: roles.row_of(layer) for layer in plan.layers}
        self._heads = {
            place for place, name in enumerate(self._names) if rows.get(name) and rows[name].head
        }
        self._rates = [
            list(net.params[layer.name])[-1]
            for layer in plan.layers
            if roles.parameters(layer).get("own_update") and layer.name in net.params
        ]
        self._has_rate = hasattr(self.solver, "lr")
        if (self._rates or self._shards) and not self._has_rate:
            self._rates = []
            self.tell.note("this pycaffe does not tell its rate: own_update goes on with its own")
        learned = sum(blob.count for kept in net.params.values() for blob in kept)
        # A model, and a solver state twice: see snapshots.write.
        self._snapshot_bytes = 4 * learned * (1 + 2 * self._histories) + (1 << 20)
        self._model_bytes = 4 * learned + (1 << 20)
        self._calls_in = hasattr(self.solver, "add_callback")
        if self._calls_in:
            self.solver.add_callback(self._before, self._after)
            net.before_forward(self._before_layer)
        else:
            self.tell.note("this pycaffe has no callbacks: a number that is not finite shows late")

    def _add_extras(self):
        """Mining and evaluation, where they are asked for."""
        job, message = self.job, self.plan.message
        self._miner = self._evaluator = None
        if job.mine_every:
            reader = extras.reader_of(self.plan.layers)
            given = roles.python_parameters(reader)
            root = given.get("root", "")
            embed = EmbeddingNet(message, self.net, given["source"], job.aside, root)
            layer = self.net.layers[self._names.index(reader.name)]
            self._miner = extras.Miner(job, self.plan.layers, layer, embed)
            if job.triplets:
                self._miner.go_on(Path(job.triplets))
        if job.evaluate_every:
            embed = EmbeddingNet(message, self.net, job.evaluate, job.aside)
            self._evaluator = extras.Evaluator(job, self.net, embed, self._model_bytes)

    def _do_extras(self):
        done = self.solver.iter
        if self._miner and done % self.job.mine_every == 0:
            self.tell.note(self._miner(done))
        if self._evaluator and done % self.job.evaluate_every == 0:
            self._evaluate()

    def _evaluate(self):
        auc = self._evaluator(self.solver.iter)
        if self._evaluator.unwritten:
            self.tell.warn(f"iteration {self.solver.iter}: {self._evaluator.unwritten}")
        self.tell.auc = auc
        log(f"Iteration {self.solver.iter}, Testing net (#0)")
        log(f"    Test net output #0: auc = {auc:.6g}")

    # --- An iteration -----------------------------------------------------------------------------

    def _step(self):
        iteration = self.solver.iter
        if not self._calls_in:
            self._before()
        self.solver.step(1)
        if not self._calls_in:
            self._after()
        losses = {name: weight * float(blob.data) for name, (weight, blob) in self._losses.items()}
        for text in self.watch.read(losses, self.tell.reports()):
            self.tell.warn(f"iteration {self.solver.iter}: {text}")
        self.tell(iteration, self._loss)

    def _before(self):
        """The random state of this iteration; the tests that it may begin with are over.

        Layers that update their weights themselves get the rate of the solver.
        """
        caffe.set_random_seed(random_state(self.job.seed, self.solver.iter))
        for blob in self._rates:
            blob.data[...] = self.solver.lr
        if self._has_rate:
            self._shards.set_rate(self.solver.lr)

    def _before_layer(self, place):
        """Our losses end the process at a number that is not finite: this tells where it arose."""
        if place in self._heads:
            for number in self.net._bottom_ids(place):
                if not is_finite(self.net._blobs[number].data):
                    raise self._not_finite(place)

    def _after(self):
        """Before the update: the weights are still those of the last whole iteration."""
        self._loss = sum(weight * float(np.sum(blob.data)) for weight, blob in self._weighted)
        if not math.isfinite(self._loss):
            raise self._not_finite(None)

    def _not_finite(self, place):
        self._heads = ()  # `locate` runs layers
        return NotFinite(f"iteration {self.solver.iter}: {locate(self.net, place)}; stopped")

    # --- Snapshots and the end --------------------------------------------------------------------

    def _snapshot(self, last=False):
        """Writes one; where it cannot be written the training goes on, and tries again."""
        done, job = self.solver.iter, self.job
        if not all(is_finite(blob.data) for kept in self.net.params.values() for blob in kept):
            raise NotFinite(f"iteration {done}: {locate(self.net)}; no snapshot; stopped")
        record = {
            "run": job.run,
            "seed": job.seed,
            "ranks": self.ranks,
            "batches": self._given + (done * self._forwards - self.batches) * self.ranks,
            "triplets": extras.recorded(self._miner.newest if self._miner else None),
            "threads": os.environ.get("OPENBLAS_NUM_THREADS"),
            "command": job.command,
        }
        self.events(writing=done)
        try:
            more = self._shards.write(job.aside, f"{Path(job.prefix).name}_iter_{done}")
            paths = snapshots.write(
                self.solver, job.prefix, job.aside, done, record, self._snapshot_bytes, more
            )
        except (OSError, UserError) as error:
            text = f"iteration {done}: no snapshot: {getattr(error, 'strerror', None) or error}"
            if last:
                raise UserError(text) from error
            self.tell.warn(f"{text}; the training goes on and tries again")
            self._retry = time.monotonic() + RETRY_SECONDS
            return
        self._saved, self._retry = done, 0.0
        log(f"Snapshotting to {paths[0]}")
        self.events(snapshot=paths)

    def _end(self):
        if self._saved != self.solver.iter:
            self._snapshot(last=True)
        if self._evaluator and not self.asked:
            self._evaluate()
        for text in self.watch.end():
            self.tell.warn(f"iteration {self.solver.iter}: {text}")
        self.tell.status(self._loss)
        if self.asked:
            self.events(stopped=self.asked[0])
            return
        if self.settings.test_interval and self.solver.iter % self.settings.test_interval == 0:
            self.solver.solve()  # no iteration is left: it tests
        log("Optimization Done.")
        if self.watch.overflows:
            raise UserError(f"iteration {self.solver.iter}: ended with a loss that overflows")
        self.events(done=self.solver.iter)
