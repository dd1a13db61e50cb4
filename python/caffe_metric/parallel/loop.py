"""The training loop of a rank: each has the whole net and its own share of the data.

After the gradients of an iteration are there, and before the solver regularises, clips and applies
them, they become their mean over the ranks. So R ranks with N rows do what one does with R x N
rows, as far as the loss is a mean over rows; where rows meet each other, GatherBatch brings them
together. Each rank then makes the same update, and rank 0 alone logs, tests, mines and writes.
"""

from __future__ import annotations

import dataclasses
import signal
import time
from pathlib import Path

import numpy as np

import caffe
from caffe_metric.nets import roles
from caffe_metric.parallel import agreement, dealing
from caffe_metric.parallel.merging import Merging
from caffe_metric.parallel.ranks import join, leave
from caffe_metric.parallel.speaking import last_to_speak
from caffe_metric.parallel.world import START_SECONDS, World
from caffe_metric.support.errors import UserError
from caffe_metric.training import extras
from caffe_metric.training.loop import Loop
from caffe_metric.training.process import beside
from caffe_metric.training.solver import read_plan
from caffe_metric.training.telling import DISPLAY


def train(job, events, asked) -> None:
    """A rank's part of a training, from MPI's start to its end. Raises UserError."""
    ranks = join(World(job.rank, job.ranks), max(job.timeout, START_SECONDS))
    events(joined=True)
    with last_to_speak(ranks):
        mine = agreement.describe(job.solver, read_plan(job.solver))
        agreement.compare(ranks, mine)
        loop = ParallelLoop(_share_job(job, ranks), events, asked, ranks)
        ranks.meet()
        ranks.timeout = job.timeout
        loop.run()
        ranks.doing = "ending"
        leave()


def _share_job(job, ranks):
    """Rank 0's job, with the files that it starts from in this rank's own folder."""
    files = {}
    if not job.rank:
        for name in ("state", "model", "triplets"):
            if path := getattr(job, name):
                files[name] = Path(path).name, Path(path).read_bytes()
    given, files = ranks.share_object((job, files))
    if not job.rank:
        return job
    own = {"rank": job.rank, "solver": job.solver, "aside": job.aside, "gpu": job.gpu}
    given = dataclasses.replace(given, **own, prefix=str(Path(job.aside, "rank")))
    for name, (base, data) in files.items():
        path = Path(job.aside, base)
        path.write_bytes(data)
        setattr(given, name, str(path))
    if given.state:
        given.state, given.model = beside(given.state, Path(job.aside))
    return given


class ParallelLoop(Loop):
    """The Loop of one of the `ranks`."""

    def __init__(self, job, events, asked, ranks):
        self._others, self._signals = ranks, asked
        self.rank, self.ranks = ranks.rank, ranks.size
        self._again, self._pass = 0.0, -1
        super().__init__(job, events, [])
        if not self._calls_in:
            raise UserError("training with several ranks needs a pycaffe with callbacks")

    # --- Before the first iteration ---------------------------------------------------------------

    def _use_device(self):
        super()._use_device()
        # Caffe's own readers of records deal them out by these numbers.
        caffe.set_solver_count(self.ranks)
        caffe.set_solver_rank(self.rank)
        caffe.set_multiprocess(True)
        # Caffe's solver would seed the generator of each rank with another number.
        caffe.set_random_seed(self.job.seed % 2**31)

    def _change_net(self, own):
        if self.plan.unread:
            raise UserError(f"several ranks need a net that can be read: {self.plan.unread}")
        dealing.check(self.plan.layers)
        super()._change_net(own)
        own.random_seed = -1
        if self.rank:  # rank 0 tests
            for field in own.DESCRIPTOR.fields:
                if field.name.startswith("test_"):
                    own.ClearField(field.name)

    def _rows(self):
        return super()._rows() * self.ranks

    def _start(self):
        for layer in self.net.layers:
            if hasattr(layer, "deal"):
                layer.deal(self.rank, self.ranks)
        super()._start()
        for kept in self.net.params.values():
            for blob in kept:
                self._others.share(blob.data)

    def _load(self, path):
        if self.rank:
            self._shards.read_model(path)  # the others' weights are rank 0's
        else:
            super()._load(path)

    def _look(self):
        super()._look()
        net, layers = self.net, self.plan.layers
        self._apart = {self._names.index(layer.name) for layer in layers if dealing.draws(layer)}
        self._merging = Merging(layers, net, self._others)
        self._gradients = self._learned()
        names = {*net.outputs, *self.plan.reports, *self._weighted_names()}
        self._numbers = [net.blobs[name] for name in sorted(names & {*net.blobs})]
        self._numbers = [blob for blob in self._numbers if blob.count == 1]
        count = sum(blob.count for blob in (*self._gradients, *self._merging.means))
        # Behind the gradients: what is shown of the whole, and whether to end or to write.
        self._flat = np.empty(count + len(self._numbers) + 2, np.float32)

    def _weighted_names(self):
        weights = self.net._blob_loss_weights
        return [name for name, weight in zip(self.net._blob_names, weights) if weight]

    def _learned(self):
        """The blobs whose gradients the solver uses."""
        clips, found = self.settings.clip_gradients > 0, []
        for layer in self.plan.layers:
            kept = self.net.params.get(layer.name, [])
            rates = [spec.lr_mult for spec in layer.param] + [1.0] * len(kept)
            state = roles.state_blobs(layer)
            for place, blob in enumerate(kept):
                if place not in state and (rates[place] or clips):
                    found.append(blob)
        return found

    def _add_extras(self):
        if not self.rank:
            super()._add_extras()
            return
        self._miner = self._evaluator = None
        if self.job.triplets and self.job.mine_every:
            self._reader().use_triplets(self.job.triplets)

    def _reader(self):
        return self.net.layers[self._names.index(extras.reader_of(self.plan.layers).name)]

    def run(self):
        self._first, self._sent, self._waited = (
            self.solver.iter,
            self._others.sent,
            self._others.waited,
        )
        super().run()

    # --- An iteration -----------------------------------------------------------------------------

    def _do_extras(self):
        self._others.doing = f"iteration {self.solver.iter}"
        if not self.rank:
            super()._do_extras()
        if not self.job.mine_every or self.solver.iter % self.job.mine_every:
            return
        newest = self._miner.newest if self._miner else None
        mined = self._others.share_object(None if newest is None else np.load(newest))
        if self.rank and mined is not None:
            path = Path(self.job.aside, f"mined{self.solver.iter}.npy")
            np.save(path, mined)
            self._reader().use_triplets(path)

    def _before(self):
        super()._before()
        self._pass = -1

    def _before_layer(self, place):
        """Layers that draw for each row draw apart on each rank; all others draw alike."""
        self._pass += place == 0
        if place in self._apart or place - 1 in self._apart:
            own = [self.rank + 1] if place in self._apart else [0]
            state = np.random.SeedSequence(
                [self.job.seed, self.solver.iter, self._pass, place, *own]
            )
            caffe.set_random_seed(int(state.generate_state(1)[0]))
        super()._before_layer(place)

    def _after(self):
        super()._after()  # a number of this rank's own that is not finite
        self._average()
        if self.solver.iter % (self.settings.display or DISPLAY) == 0:
            agreement.compare_weights(self._others, self.net, self.solver.iter)
        super()._after()

    def _average(self):
        """Gradients, state and what is shown become their means over the ranks."""
        flat = self._flat
        arrays = [blob.diff for blob in self._gradients]
        arrays += [blob.data for blob in (*self._merging.means, *self._numbers)]
        end = 0
        for array in arrays:
            begin, end = end, end + array.size
            flat[begin:end] = array.reshape(-1)
        flat[-2] = bool(self._signals)
        flat[-1] = bool(self._again) and time.monotonic() > self._again
        self._others.add(flat)
        if flat[-2]:
            self.asked.append(self._signals[0] if self._signals else int(signal.SIGTERM))
        self._retry = float(flat[-1])
        flat[:-2] *= np.float32(1 / self.ranks)
        end = 0
        for array in arrays:
            begin, end = end, end + array.size
            array[...] = flat[begin:end].reshape(array.shape)

    # --- Snapshots and the end --------------------------------------------------------------------

    def _snapshot(self, last=False):
        self._again = 0.0
        if self.rank:
            self._shards.write("", "")
            self._saved, self._retry = self.solver.iter, 0.0
            return
        super()._snapshot(last)
        # All ranks are told when it is time to try again.
        self._again, self._retry = self._retry, 0.0

    def _tell_exchange(self):
        done = self.solver.iter - self._first
        if done:
            sent, waited = (self._others.sent - self._sent), (self._others.waited - self._waited)
            self.tell.note(
                f"an iteration exchanged {sent / done / 1e6:.3g} MB a rank, in "
                f"{1000 * waited / done:.3g} ms (waiting for the other ranks included)"
            )

    def _end(self):
        self._others.doing = f"the end, iteration {self.solver.iter}"
        if not self.rank:
            self._tell_exchange()
            super()._end()
            return
        if self._saved != self.solver.iter:
            self._snapshot(last=True)
        if self.asked:
            self.events(stopped=self.asked[0])
        else:
            self.events(done=self.solver.iter)
