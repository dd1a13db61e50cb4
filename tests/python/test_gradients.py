"""Every option of every layer, C++ and Python, against central differences through pycaffe.

The check is the one of `caffe-metric gradcheck`; test_gradcheck_command.py and test_teeth.py show
that it finds faults. Float nets: the relative error allowed is tolerances.DIFFERENCES.
"""

from __future__ import annotations

import numpy as np
import pytest
import tolerances
from caffe.proto import caffe_pb2
from caffe_metric import suite
from caffe_metric.gradients import check as gradcheck
from caffe_metric.nets import isolate
from cases import every_case
from google.protobuf import text_format
from harness import need

import caffe

# The rules in NumPy have the same formulas; test_*_values.py hold them against the oracle.
ALL = [case for engine in ("cpp", "python") for case in every_case(engine)]


def captured(spec, bottoms, weights):
    """The layer as gradcheck sees it in a net."""
    net = caffe_pb2.NetParameter()
    text_format.Parse(spec.text(bottoms), net)
    layer = net.layer[0]
    blobs = []
    if weights is not None:
        persistent = spec.parameters.get("persist_iteration", True)
        blobs = [weights, np.zeros(1, np.float32)][: 1 + persistent]
    arrays = {name: np.asarray(value, np.float32) for name, value in bottoms.items()}
    kept = isolate.Captured(b"", caffe.TRAIN, arrays, blobs)
    kept.notes = gradcheck.prepare(layer, kept)
    kept.layer = layer.SerializeToString()
    return kept


@pytest.mark.parametrize(
    ("spec", "bottoms", "weights"), [case[1:] for case in ALL], ids=[case[0] for case in ALL]
)
def test_gradient(spec, bottoms, weights):
    need(spec.engine, spec.type)
    probe = isolate.LayerProbe(captured(spec, bottoms, weights))
    findings = gradcheck.check_layer(probe, tolerance=tolerances.DIFFERENCES, probes=12)
    checked = [finding for finding in findings if finding.verdict != gradcheck.SKIPPED]
    constants = suite.find(spec.type).constants
    assert bool(checked) is not bool(constants)
    table = gradcheck.Findings(findings)
    assert [finding.verdict for finding in checked] == ["ok"] * len(checked), table
    skipped = {finding.blob: finding.note for finding in findings if finding not in checked}
    assert set(skipped) <= {"bottom 0 'x'", "bottom 1 'y'", "bottom 3 'w'", "weight 0", "weight 1"}
    assert ("bottom 0 'x'" in skipped) is bool(constants)
    if "weight 0" in skipped:
        assert spec.parameters.get("triplet") or spec.parameters["update"] == "DELTA"
