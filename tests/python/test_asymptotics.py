"""How the cost of the layers grows: in counted operations and in bytes, never in seconds.

A number type counts the operations of the C++ rules (counted/counted.cpp); a process of its own
shows the peak memory of a layer beyond its blobs (benchmarks/memory.py). Each kind of measurement
is also made of something that is known to grow faster, and must see it.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).parent / "counted" / "counted.cpp"
MIB = 2**20


@pytest.fixture(scope="session")
def counted(tmp_path_factory):
    """counted(rule, positives, negatives) -> (operations, loss)."""
    program = tmp_path_factory.mktemp("counted") / "counted"
    compiler = os.environ.get("CXX", "c++")
    command = [compiler, "-std=c++11", "-O1", "-I", ROOT / "include", SOURCE, "-o", program]
    subprocess.run(command, check=True)

    def run(rule, positives, negatives):
        arguments = [program, rule, str(positives), str(negatives)]
        output = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout
        operations, loss = output.split()
        return int(operations), float(loss)

    return run


@pytest.mark.parametrize("positives", [1, 3, 16, 100, 512])
def test_hinge_of_all_takes_a_logarithm_of_the_positives(counted, positives):
    negatives = 3001
    operations, loss = counted("hinge", positives, negatives)
    # A negative is searched for among the thresholds, and added to a few sums.
    searches = negatives * (math.log2(positives) + 5)
    # Sorting takes more comparisons than K log K by a small factor.
    assert operations <= searches + 4 * positives * (math.log2(positives) + 5)
    # The loops over every triplet come to the same loss, by a work that grows with K.
    slow, expected = counted("loops", positives, negatives)
    assert loss == pytest.approx(expected, rel=1e-5)  # printed with six digits
    assert slow >= 4 * positives * negatives


def test_hinge_of_all_is_linear_in_the_negatives(counted):
    few, many = (counted("hinge", 16, negatives)[0] for negatives in (2000, 16000))
    assert many <= 1.1 * 8 * few


def test_rank_negatives_is_linear_in_the_rows(counted):
    few, many = (counted("rank", 1, rows)[0] for rows in (2000, 16000))
    assert many <= 1.1 * 8 * few


@pytest.fixture(scope="module")
def beyond():
    """beyond(kind, body, shapes, ...) -> bytes at the peak that are no blob of the net."""
    pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")
    sys.path.insert(0, str(ROOT))
    try:
        from benchmarks.memory import peak_beyond_blobs
    finally:
        sys.path.remove(str(ROOT))
    return peak_beyond_blobs


@pytest.mark.slow
def test_memory_of_an_extra_array_is_seen(beyond):
    # SoftmaxWithLoss keeps the probabilities, rows x classes.
    rows, classes = 128, 40001
    shapes = {"features": [rows, classes], "labels": [rows]}
    assert beyond("SoftmaxWithLoss", "", shapes, classes) >= 4 * rows * classes


@pytest.mark.slow
def test_margin_inner_product_keeps_no_array_of_rows_x_classes(beyond):
    rows, dim = 128, 33
    shapes = {"features": [rows, dim], "labels": [rows]}

    def measure(classes):
        body = (
            f"margin_inner_product_param {{ num_output: {classes} type: QUADRUPLE "
            'weight_filler { type: "xavier" } }'
        )
        return beyond("MarginInnerProduct", body, shapes, classes)

    few, many = 20001, 150001
    # A few numbers a class; an array of logits would be 512 bytes a class, one of weights 132.
    assert measure(many) - measure(few) <= 32 * (many - few)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("TripletLoss", "triplet_loss_param { mining: ALL margin: 0.2 }"),
        ("TripletLoss", "triplet_loss_param { mining: HARDEST }"),
        ("RankHardLoss", "rank_param { neg_num: 4 }"),
    ],
    ids=["all", "hardest", "rank"],
)
@pytest.mark.slow
def test_batches_of_any_size_take_strips_of_fixed_size(beyond, kind, body):
    dim = 8

    def measure(rows):
        return beyond(kind, body, {"features": [rows, dim], "labels": [rows]})

    few, many = 6000, 12000
    # A few copies of the features, and a record for each triplet that is kept.
    linear = 1024 * (many - few)
    assert measure(many) - measure(few) <= linear + 8 * MIB
    assert 4 * (many**2 - few**2) > 20 * linear  # N x N would be seen
    assert measure(many) <= 200 * MIB
