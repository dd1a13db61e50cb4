"""What ranks exchange, by what each of three has afterwards; and files of shards, by any number.

This file is also what the ranks run: `python test_mpi_ranks.py WHAT FOLDER`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from caffe_metric.parallel import ranks as parallel
from caffe_metric.parallel import world
from mpi_case import finish, need_mpi, start

FEATURES, CLASSES = 5, 11


class Part:
    """A layer with a rank's share of the classes."""

    SHARDED = True

    def __init__(self, ranks, values=None):
        self.first, last = (CLASSES * r // ranks.size for r in (ranks.rank, ranks.rank + 1))
        self.weights, self.history = np.zeros((2, last - self.first, FEATURES), np.float32)
        self.rate = 0.1
        if values is not None:
            self.weights[...], self.history[...] = values[:, self.first : last]


class Net:
    def __init__(self, layer):
        self._layer_names, self.layers = ["loss"], [layer]


def whole():
    return np.arange(2 * CLASSES * FEATURES, dtype=np.float32).reshape(2, CLASSES, FEATURES)


def exchange(ranks, folder):
    rank, size = ranks.rank, ranks.size
    assert ranks.gather(np.float32(rank)).tolist() == [0, 1, 2]
    rows = ranks.gather_rows(np.full((rank, 2), rank, np.int64))
    assert [row.tolist() for row in rows] == [[], [[1, 1]], [[2, 2], [2, 2]]]
    # Part (k) of rank r is 10 r + k; this rank has the sum of its own.
    parts = np.array([[10.0 * rank + part] for part in range(size)])
    assert ranks.sum_own(parts).tolist() == [30 + 3 * rank]
    # In the order of the ranks: (1e8 - 1e8) + 1, not 1e8 + (1 - 1e8).
    vector = np.full(7, [1e8, -1e8, 1][rank], np.float32)
    ranks.add(vector)
    assert (vector == 1).all()
    shared = np.full((2, 2), rank)
    ranks.share(shared, root=1)
    assert (shared == 1).all()
    assert ranks.share_object({"rank": rank}, root=2) == {"rank": 2}
    assert ranks.gather_objects("x" * rank) == ["", "x", "xx"]
    into = np.zeros(3)
    ranks.carry(np.full(3, 7.0), into, 2, 1)
    assert (into == 7).all() == (rank == 1)
    # More than one part of a sum, and none.
    many = np.arange(parallel.PART + 5, dtype=np.float32) % 97
    ranks.add(many)
    assert many[-1] == 3 * ((parallel.PART + 4) % 97)
    ranks.add(np.empty(0, np.float32))


def write(ranks, folder):
    from caffe_metric.parallel.shards import Shards

    Shards(Net(Part(ranks, whole())), ranks).write(folder, "net_iter_1")


def read(ranks, folder):
    from caffe_metric.parallel.shards import Shards

    layer, wanted = Part(ranks), Part(ranks, whole())
    Shards(Net(layer), ranks).read([Path(folder, "net_iter_1_classes0.npy")])
    np.testing.assert_array_equal(layer.weights, wanted.weights)
    np.testing.assert_array_equal(layer.history, wanted.history)


def run(count, what, folder):
    status, _, err = finish(start(count, folder, sys.executable, __file__, what, str(folder)))
    assert status == 0, err


@pytest.mark.slow
def test_what_three_ranks_exchange(tmp_path):
    need_mpi()
    run(3, "exchange", tmp_path)


@pytest.mark.slow
def test_three_ranks_write_what_two_read(tmp_path):
    need_mpi()
    pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")
    run(3, "write", tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "net_iter_1_classes0.npy"), whole())
    run(2, "read", tmp_path)


def test_a_rank_that_is_alone(tmp_path):
    alone = parallel.Ranks()
    vector = np.arange(3.0)
    alone.add(vector)
    assert vector.tolist() == [0, 1, 2]
    assert alone.gather(np.arange(2)).tolist() == [[0, 1]]
    assert alone.sum_own(np.ones((1, 2))).tolist() == [1, 1]
    assert alone.share_object("x") == "x"
    assert alone.sent == 0


if __name__ == "__main__":
    joined = parallel.join(world.find(), 60.0)
    {"exchange": exchange, "write": write, "read": read}[sys.argv[1]](joined, sys.argv[2])
    parallel.leave()
