"""What happens to a training of several ranks: one clear message, in bounded time, and no harm.

The signals go to the processes of a rank as they would on a machine of its own; what is left out is
a network that drops packets.
"""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")

import training_nets as nets
from caffe_metric.parallel import agreement, world
from caffe_metric.support.errors import UserError
from caffe_metric.training import process as training_process
from caffe_metric.training import snapshots
from caffe_metric.training.solver import read_plan
from mpi_case import TRAIN, finish, need_mpi, start, train

NET = nets.DATA + nets.FC + nets.SOFTMAX
# Ranks that have to be ended are gone by then, on a busy machine, too.
BOUND = 60
# A layer of a user's own that does on rank 1, after ten iterations, what a test asks for.
LAYER = """
layer { name: "fault" type: "Python" bottom: "fc" top: "faulty"
  python_param { module: "faults" layer: "Fault" param_str: "%s" } }
"""
MODULE = """
import os
import caffe
class Fault(caffe.Layer):
    count = 0
    def setup(self, bottom, top):
        self.blobs.add_blob(1)
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)
    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data
        self.count += 1
        if self.count < 10 or os.environ.get("OMPI_COMM_WORLD_RANK") != "1":
            return
        if self.param_str == "drift":
            self.blobs[0].data[...] += 1
        if self.param_str == "nan":
            top[0].data[...] = float("nan")
        if self.param_str == "raise":
            raise ValueError("no more rows")
    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = top[0].diff
"""


def faulty(folder, what):
    """A training whose rank 1 does that at its tenth iteration."""
    net = nets.DATA + nets.FC + LAYER % what + nets.SOFTMAX.replace('"fc"', '"faulty"')
    nets.write(folder, net, snapshot=5, max_iter=100000)
    (folder / "faults.py").write_text(MODULE)
    return folder


def workers(folder, rank):
    """The processes that compute for a rank."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            here = (process / "cwd").resolve() == folder.resolve()
            command = (process / "cmdline").read_text()
            environment = (process / "environ").read_text().split("\0")
        except OSError:
            continue
        ours = here and "training.worker" in command
        if ours and f"OMPI_COMM_WORLD_RANK={rank}" in environment:
            found.append(int(process.name))
    return found


def when_under_way(process, folder):
    while not snapshots.find(folder / "small"):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def told(err):
    """What the ranks say; the rest is mpirun's."""
    return [line for line in err.splitlines() if line.startswith("caffe-metric")]


def ends(process, folder):
    """Its message, once it has ended as a failure, with nobody left and a whole snapshot."""
    began = time.monotonic()
    status, _, err = finish(process, BOUND)
    assert status != 0
    assert time.monotonic() - began < BOUND
    (message,) = told(err)
    assert not workers(folder, 0) and not workers(folder, 1)
    assert snapshots.newest_whole(folder / "small").iteration >= 5
    return message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "says"),
    [
        (signal.SIGKILL, r"rank 1 of 2 on \S+: ended by SIGKILL"),
        (
            signal.SIGSTOP,
            r"rank 0 of 2 on \S+: rank 1 on \S+ did not answer for 4 s \(iteration \d+\)",
        ),
    ],
)
def test_a_rank_that_dies_or_stops_ends_the_training(tmp_path, number, says):
    need_mpi()
    folder = nets.write(tmp_path / "small", NET, snapshot=5, max_iter=1000000)
    training = start(2, folder, *TRAIN, "--timeout", "4")
    when_under_way(training, folder)
    for pid in workers(folder, 1):
        os.kill(pid, number)
    assert re.search(says, ends(training, folder))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("raise", r"rank 1 of 2 on \S+: .*no more rows"),
        ("nan", r"rank 1 of 2 on \S+: iteration 9: .*'fault' \(Python\) holds nan"),
        (
            "drift",
            r"iteration 10: the weights of rank 1 on \S+ are not those of rank 0 on \S+, first in "
            "blob 0 of layer 'fault'; stopped",
        ),
    ],
)
def test_a_fault_in_a_layer_of_one_rank(tmp_path, what, says):
    need_mpi()
    folder = faulty(tmp_path / "small", what)
    message = ends(start(2, folder, *TRAIN, "--timeout", "4"), folder)
    assert re.search(says, message), message


@pytest.mark.slow
def test_a_fault_of_all_ranks_is_told_once(tmp_path):
    need_mpi()
    folder = nets.write(tmp_path / "small", nets.DATA + nets.FC)
    (folder / "net.prototxt").write_text('layer { name: "x" type: "NoLayer" top: "x" }')
    status, _, err = train(2, folder)
    assert status != 0
    (message,) = told(err)
    assert "rank 0 of 2" in message and "NoLayer" in message


def pair(one, other, *more):
    """Two ranks, each in a folder of its own."""
    options = ["-wdir", str(one)]
    second = [":", "-n", "1", "-wdir", str(other), *more]
    run = [*TRAIN, *second, *TRAIN]
    process = start_pair(one, options, run)
    status, _, err = finish(process, BOUND)
    assert status != 0
    (message,) = told(err)
    return message


def start_pair(folder, options, run):
    # `start` counts the ranks of the first part only.
    return start(1, folder, "mpirun", "--oversubscribe", "-n", "1", *options, *run)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["net", "version"])
def test_ranks_that_differ_are_refused_at_the_start(tmp_path, what):
    need_mpi()
    one, other = (nets.write(tmp_path / name, NET) for name in ("one", "other"))
    more = ()
    if what == "net":
        nets.write(other, NET.replace("num_output: 8", "num_output: 9"))
        says = r"rank 1 on \S+ has another net net.prototxt than rank 0"
    else:
        (other / "sitecustomize.py").write_text(
            "import caffe_metric\ncaffe_metric.__version__ = '0.0.1'\n"
        )
        path = os.pathsep.join([str(other), os.environ.get("PYTHONPATH", "")])
        more = ("-x", f"PYTHONPATH={path}")
        says = r"has another version of caffe-metric than rank 0 on \S+: 0.0.1, not "
    message = pair(one, other, *more)
    assert re.search(says, message), message
    assert not snapshots.find(one / "small")


def test_what_ranks_have_in_common(tmp_path, monkeypatch):
    folders = [nets.write(tmp_path / name, NET) for name in ("one", "same", "solver", "file")]
    nets.write(folders[2], NET, base_lr=0.5)
    data = folders[3] / "data.lmdb" / "data.mdb"
    data.write_bytes(data.read_bytes() + b"more")
    found = []
    for folder in folders:
        monkeypatch.chdir(folder)
        found.append(agreement.describe("solver.prototxt", read_plan("solver.prototxt")))
    one, same, solver, file = found
    assert one == same
    assert [name for name in one if one[name] != solver[name]] == ["solver solver.prototxt"]
    differ = [name for name in one if one[name] != file[name]]
    assert differ == ["file data.lmdb (layer 'data')"]
    assert " bytes, " in one[differ[0]]


def test_ranks_that_do_not_come_are_not_waited_for_longer(tmp_path, monkeypatch):
    monkeypatch.setattr(training_process, "START_SECONDS", 0.1)
    folder = nets.write(tmp_path / "small", NET)
    training = training_process.Training(
        "solver.prototxt", folder / "log", folder=folder, world=world.World(0, 2), timeout=0.1
    )
    with training, pytest.raises(UserError, match="the other ranks did not come in 0.1 s"):
        while not training.poll():
            time.sleep(0.01)


@pytest.mark.slow
def test_an_mpirun_of_another_mpi_is_said(tmp_path):
    need_mpi()
    folder = nets.write(tmp_path / "small", NET)
    status, _, err = train(1, folder, PMI_RANK="0", PMI_SIZE="2")
    assert status == 1
    assert "2 ranks were started, but MPI sees 1: mpirun and mpi4py are of two MPIs" in err


@pytest.mark.slow
def test_a_resumed_training_ends_with_the_same_bits(tmp_path):
    need_mpi()
    net = NET.replace('bottom: "fc" top: "out"', 'bottom: "drop" top: "out"').replace(
        nets.FC,
        nets.FC + 'layer { name: "drop" type: "Dropout" bottom: "fc" top: "drop" }\n',
    )
    whole, parts = (nets.write(tmp_path / name, net, max_iter=40) for name in ("whole", "parts"))
    assert train(2, whole)[0] == 0
    nets.write(parts, net, max_iter=15)
    assert train(2, parts)[0] == 0
    nets.write(parts, net, max_iter=40)
    status, out, err = train(2, parts, "--resume")
    assert status == 0, err
    assert "another order" not in out
    for suffix in ("caffemodel", "solverstate"):
        name = f"small_iter_40.{suffix}"
        assert (whole / name).read_bytes() == (parts / name).read_bytes()


@pytest.mark.slow
def test_another_number_of_ranks_goes_on_and_says_so(tmp_path):
    need_mpi()
    folder = nets.write(tmp_path / "small", NET, max_iter=10)
    assert train(2, folder)[0] == 0
    nets.write(folder, NET, max_iter=20)
    status, out, err = train(1, folder, "--resume")
    assert status == 0, err
    assert "the snapshot was written with 2 ranks, 1 go on: sums are made in another order" in out
    # 2 x 10 batches of 16 have been read, of 64 images
    assert "goes on at record 0 of 64" in out
    assert snapshots.newest_whole(folder / "small").record["batches"] == 30


@pytest.mark.slow
def test_a_rank_that_is_asked_to_end_ends_all_with_a_snapshot(tmp_path):
    need_mpi()
    folder = nets.write(tmp_path / "small", NET, snapshot=5, max_iter=1000000)
    process = start(2, folder, *TRAIN)
    when_under_way(process, folder)
    (pid,) = workers(folder, 1)
    os.kill(pid, signal.SIGTERM)
    status, _, err = finish(process, BOUND)
    assert status != 0
    assert "with a snapshot" in told(err)[0]
    newest = snapshots.newest_whole(folder / "small")
    assert newest.iteration % 5 or newest.iteration > 5


OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "2",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, world.World()),
        (OPEN_MPI, world.World(2, 4, 2)),
        ({**OPEN_MPI, "OMPI_COMM_WORLD_SIZE": "1"}, world.World()),
        ({"PMI_RANK": "1", "PMI_SIZE": "3"}, world.World(1, 3, 1)),
        (
            {
                "PMIX_RANK": "5",
                "SLURM_STEP_NUM_TASKS": "8",
                "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
            },
            world.World(5, 8, 4),
        ),
        # A batch script of Slurm that starts nothing by srun.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, world.World()),
    ],
)
def test_the_environment_tells_the_world(monkeypatch, environment, found):
    monkeypatch.setattr(world.importlib.util, "find_spec", lambda name: name)
    assert world.find(environment) == found


def test_ranks_without_mpi4py(monkeypatch):
    monkeypatch.setattr(world.importlib.util, "find_spec", lambda name: None)
    assert world.find({}) == world.World()
    with pytest.raises(UserError, match=r"4 ranks .*: pip install 'caffe-metric\[mpi\]'"):
        world.find(OPEN_MPI)
