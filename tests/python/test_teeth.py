"""The gradient check fails on every broken gradient: a check that passes all would be worthless.

Each gradient of each layer is broken in turn: zeroed, sign turned, a factor missing, one row wrong,
and deaf to the top's diff (the fault of the older layers, which forgot loss_weight).
"""

from __future__ import annotations

import numpy as np
import pytest
import tolerances
from caffe_metric.gradients import check as gradcheck
from caffe_metric.nets import isolate
from cases import every_case
from harness import need
from test_gradients import captured

# One case a layer and layout is enough: the check is the same for all.
NAMES = [
    "cpp-Norm-4x7",
    "cpp-TripletLoss-3-HINGE-SQUARED_L2-False",
    "cpp-TripletLoss-3-RATIO-LP-True",
    "cpp-TripletLoss-2-ALL-COSINE",
    "cpp-TripletLoss-2-HARDEST-L2",
    "cpp-TripletLoss-1-3-True",
    "cpp-RankHardLoss-2-9-0.5-0.5",
    "cpp-MarginInnerProduct-type=QUADRUPLE-base=5.0",
    "cpp-MarginInnerProduct-angular_margin=0.3-cosine_margin=0.2",
    "python-TripletLoss-3-SOFT-L2-False",
    "python-MarginInnerProduct-type=DOUBLE-base=0.0",
]
CASES = {name: rest for name, *rest in (*every_case("cpp"), *every_case("python"))}


def one_row(gradient):
    changed = gradient.copy()
    changed[np.abs(gradient).reshape(len(gradient), -1).max(1).argmax()] *= 0.5
    return changed


FAULTS = {
    "zero": lambda gradient: 0 * gradient,
    "sign": lambda gradient: -gradient,
    "factor of two": lambda gradient: gradient / 2,
    "five per cent": lambda gradient: gradient * 1.05,
    "one row": one_row,
    "no gradient": lambda gradient: np.full_like(gradient, np.nan),
}


class Broken:
    """A probe whose gradient of one blob is wrong."""

    def __init__(self, probe, blob, fault):
        self.probe, self.blob, self.fault = probe, blob, fault

    def __getattr__(self, name):
        return getattr(self.probe, name)

    def gradients(self, projections):
        by_bottom, by_blob = self.probe.gradients(projections)
        if isinstance(self.blob, str):
            by_bottom[self.blob] = self.fault(by_bottom[self.blob])
        else:
            by_blob[self.blob] = self.fault(by_blob[self.blob])
        return by_bottom, by_blob


class Deaf(Broken):
    """A layer that takes the top's diff for 1."""

    def gradients(self, projections):
        return self.probe.gradients([np.ones_like(projection) for projection in projections])


def probe_of(name):
    spec, bottoms, weights = CASES[name]
    need(spec.engine)
    return isolate.LayerProbe(captured(spec, bottoms, weights))


def verdicts(probe):
    findings = gradcheck.check_layer(probe, tolerance=tolerances.DIFFERENCES, probes=12)
    return {finding.blob: finding.verdict for finding in findings if finding.verdict != "-"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_gradient_fails(name, fault):
    probe = probe_of(name)
    right = verdicts(probe)
    assert set(right.values()) == {"ok"}
    places = {f"bottom {i} '{blob}'": blob for i, blob in enumerate(probe.bottoms)}
    places |= {f"weight {i}": i for i in range(len(probe.parameters))}
    for checked in right:
        broken = Broken(probe_of(name), places[checked], FAULTS[fault])
        assert verdicts(broken) == {**right, checked: "FAIL"}


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_deaf_to_loss_weight_fails(name):
    found = verdicts(Deaf(probe_of(name), None, None))
    assert set(found.values()) == {"FAIL"}
