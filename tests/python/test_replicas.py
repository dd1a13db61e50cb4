"""What docs/multi_gpu.md says of replicas, played on the CPU.

Two solvers stand for two GPUs: each runs forward and backward on its own batch, all diffs are
replaced by their mean (the all-reduce), each applies its update; the broadcast copies the
parameters of solver 0 before each forward.
"""

from __future__ import annotations

import numpy as np
import pytest

caffe = pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")

NET = """
layer {{ name: "data" type: "Input" top: "data" top: "label"
  input_param {{ shape {{ dim: 8 dim: 5 }} shape {{ dim: 8 }} }} }}
layer {{ name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
  inner_product_param {{ num_output: 4 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "margin" type: "MarginInnerProduct" bottom: "fc" bottom: "label" top: "margin"
  {spec}
  margin_inner_product_param {{ num_output: 4 type: DOUBLE base: 2 gamma: 0.1 {options}
    weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "margin" bottom: "label" top: "loss" }}
"""
SOLVER = """
net: "{net}" base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.001 max_iter: 100
random_seed: {seed} solver_mode: CPU
"""
SAMPLES = "param { lr_mult: 0 decay_mult: 0 } param { lr_mult: 0 decay_mult: 0 }"


def make_replicas(folder, spec, options):
    """Two solvers, seeded as Caffe seeds its ranks, with the parameters of the first."""
    (folder / "net.prototxt").write_text(NET.format(spec=spec, options=options))
    replicas = []
    for rank in range(2):
        path = folder / f"solver{rank}.prototxt"
        path.write_text(SOLVER.format(net=folder / "net.prototxt", seed=5 + rank))
        replicas.append(caffe.SGDSolver(str(path)))
    broadcast(replicas)
    return replicas


def blobs(solver):
    return [blob for blobs in solver.net.params.values() for blob in blobs]


def broadcast(replicas):
    for own, first in zip(blobs(replicas[1]), blobs(replicas[0])):
        own.data[...] = first.data


def iterate(replicas, rng, iterations, before=lambda replicas: None):
    for _ in range(iterations):
        before(replicas)
        for solver in replicas:
            solver.net.clear_param_diffs()
            solver.net.blobs["data"].data[...] = rng.normal(size=(8, 5))
            solver.net.blobs["label"].data[...] = rng.integers(0, 4, 8)
            solver.net.forward()
            solver.net.backward()
        for pair in zip(*(blobs(solver) for solver in replicas)):
            mean = np.mean([blob.diff for blob in pair], axis=0)
            for blob in pair:
                blob.diff[...] = mean
        for solver in replicas:
            solver.apply_update()


def differences(replicas):
    """{layer: the largest difference between the replicas' parameters}"""
    first, second = (solver.net.params for solver in replicas)
    return {
        name: max(np.abs(a.data - b.data).max() for a, b in zip(first[name], second[name]))
        for name in first
    }


def test_learned_weights_stay_equal(tmp_path, rng):
    replicas = make_replicas(tmp_path, "", "")
    iterate(replicas, rng, 20)
    assert differences(replicas) == {"fc": 0, "margin": 0}
    assert replicas[0].net.params["margin"][1].data[0] == 20


def test_samples_drift_apart(tmp_path, rng):
    replicas = make_replicas(tmp_path, SAMPLES, "triplet: true")
    iterate(replicas, rng, 20)
    differ = differences(replicas)
    assert differ["fc"] == 0
    assert differ["margin"] > 0.1


def test_a_broadcast_before_each_forward_keeps_samples_equal(tmp_path, rng):
    replicas = make_replicas(tmp_path, SAMPLES, "triplet: true")
    start = blobs(replicas[0])[2].data.copy()
    for _ in range(20):
        iterate(replicas, rng, 1, before=broadcast)
        broadcast(replicas)  # what the next iteration begins with
        assert differences(replicas) == {"fc": 0, "margin": 0}
    assert np.abs(blobs(replicas[0])[2].data - start).max() > 0.1
