"""Is the gradient of each layer of a net right?

Each layer of the net is taken out, with the bottoms and weights it has there, and its backward pass
is held against central differences of its forward pass. The objective is sum(r * top) with a random
r, so a gradient that forgets the top's diff (loss_weight) is found as well. Layers compute in
float32; the objective and the differences are float64.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caffe_metric.gradients import finite_differences, small_batch
from caffe_metric.nets import isolate, netfile, phases, roles
from caffe_metric.support import child, tables
from caffe_metric.support.arrays import read_npz
from caffe_metric.support.errors import UserError
from caffe_metric.support.progress import Progress

TOLERANCE = 1e-2
PROBES = 16
SMOOTH = 3  # probes without a kink that must agree, at least
DIRECTIONS = 4
NOISE_LINES = 3  # of each kind, on which rounding is measured
FIRST_STEP = 2.0**-5  # of the root mean square of a blob
FLOOR = 1e-2  # a slope under this share of the blob's greatest counts as this share

OK, FAIL, UNCLEAR, SKIPPED = "ok", "FAIL", "unclear", "-"


@dataclass
class Finding:
    """One line of the table: a bottom or a weight of a layer."""

    layer: str
    type: str
    blob: str
    verdict: str
    note: str = ""
    shape: tuple[int, ...] = ()
    probes: int = 0
    error: float | None = None
    where: str = ""
    kinks: int = 0
    crossings: int = 0


class Findings(list):
    """The findings of a net: a list that shows itself as a table, a line a bottom or weight.

    about: the seed and the batch, by which the check can be repeated; the last line says it.
    """

    about = ""

    def __repr__(self) -> str:
        return tables.text(self._rows())

    def _repr_html_(self) -> str:
        return tables.as_html(self._rows(), head=True)

    def _rows(self):
        rows = [("layer", "type", "blob", "probes", "kinks", "error", "verdict", "where")]
        for found in self:
            checked = (str(found.probes), str(found.kinks)) if found.probes else ("", "")
            error = "" if found.error is None else f"{found.error:.1e}"
            last = self.about if found is self[-1] else ""
            about = "; ".join(part for part in (found.where, found.note, last) if part)
            rows.append(
                (found.layer, found.type, found.blob, *checked, error, found.verdict, about)
            )
        return rows


def gradcheck(
    path: str,
    layer: str | None = None,
    weights: str | None = None,
    data: str | None = None,
    phase: str = "train",
    seed: int = 0,
    tolerance: float = TOLERANCE,
    probes: int = PROBES,
) -> Findings:
    """Is the gradient of each layer of a prototxt right? The arguments are the command's.

    layer: check this one only. weights: a caffemodel to start from. data: an .npz file of arrays
    for the net's inputs, by name. phase: train or test. tolerance: the greatest relative error.
    probes: elements of a blob to perturb. Caffe runs in child processes. Raises UserError where
    the net cannot be built or run, or has no such layer.
    """
    netfile.quiet_caffe()
    netfile.find_python_layers(path)
    net = netfile.read(path)
    number = {"train": 0, "test": 1}[phase]
    present = [known for known in net.layer if phases.included(known, number)]
    if layer is not None and layer not in [known.name for known in present]:
        names = ", ".join(known.name for known in present)
        raise UserError(f"{path}: no layer '{layer}' in phase {phase.upper()}; there are {names}")

    def wanted(known) -> bool:
        return bool(known.bottom) and layer in (None, known.name)

    values = read_npz(data) if data else {}
    captured, rows = _captured(path, net, number, weights, values, seed, wanted)
    if not captured:
        raise UserError(f"{path}: has no layer to check")
    findings = Findings()
    findings.about = f"seed {seed}" + (f", a batch of {rows} rows" if rows else "")
    with Progress() as progress:
        for kept in progress.each(captured, "checking gradients"):
            findings += _check_in_child(kept, seed, tolerance, probes)
    return findings


def _captured(path, net, number, *rest):
    """What the layers meet, on a small batch where the net takes one; and its rows, or 0."""
    small = type(net)()
    small.CopyFrom(net)
    with tempfile.TemporaryDirectory() as folder:
        rows = small_batch.shrink(small, number, folder)
        if rows:
            file = str(Path(folder, "net.prototxt"))
            Path(file).write_text(str(small), encoding="utf-8")
            outcome = child.run(lambda: isolate.capture(file, small, number, *rest))
            if outcome.ok:
                return outcome.value, rows
    # A net may count on its batch: a Slice by rows, a Reshape.
    outcome = child.run(lambda: isolate.capture(path, net, number, *rest))
    if not outcome.ok:
        raise UserError(f"{path}: the net does not run: {one_line(outcome.last_words)}")
    return outcome.value, 0


def _check_in_child(kept, seed, tolerance, probes) -> list[Finding]:
    """A layer that aborts, or raises, takes only its own line with it."""
    from caffe.proto import caffe_pb2

    layer = caffe_pb2.LayerParameter.FromString(kept.layer)
    if not layer.top and layer.type.endswith("Loss"):
        layer.top.append(f"{layer.name} (no top)")  # Caffe makes one by itself
    if layer.type in roles.NO_GRADIENT or not layer.top:
        return [Finding(layer.name, layer.type, "", SKIPPED, "has no backward pass")]
    notes = list(kept.notes) + prepare(layer, kept)
    kept.layer = layer.SerializeToString()
    outcome = child.run(
        lambda: check_layer(isolate.LayerProbe(kept, seed), seed, tolerance, probes)
    )
    if not outcome.ok:
        return [Finding(layer.name, layer.type, "", FAIL, one_line(outcome.last_words))]
    for finding in outcome.value:
        finding.note = "; ".join(part for part in [finding.note, *notes] if part)
    return outcome.value


def prepare(layer, kept) -> list[str]:
    """Takes out of a layer what would blur a check, and says so."""
    notes = []
    row = roles.row_of(layer)
    if row is not None and row.counts:
        given = roles.parameters(layer)
        t = float(kept.blobs[1].flat[0]) if len(kept.blobs) > 1 else given.get("iteration", 0)
        notes.append(isolate.freeze_schedule(layer, t))
        if given.get("semihard"):
            isolate.change(layer, semihard=False)
            notes.append("checked without semihard, which drops rows on purpose")
        if given.get("own_update"):
            isolate.change(layer, own_update=False)
            notes.append("checked without own_update, which leaves the weights no diff")
        if given.get("gradient") in (1, "REFERENCE"):
            notes.append("gradient: REFERENCE is a published update rule, not the derivative")
    if roles.kind(layer) == "ShardedMarginSoftmaxLoss":
        isolate.change(layer, update_rate=0.0, gamma=0.0, semihard=False)
        notes.append("checked at a rate of 0, lambda at its base, without semihard")
    return [note for note in notes if note]


def check_layer(probe, seed: int = 0, tolerance: float = TOLERANCE, probes: int = PROBES):
    """Findings for every bottom and blob of an isolate.LayerProbe, or of something like it.

    Where the function has kinks at the very point (ties, exact zeros), the check is repeated at a
    point beside it, and the kinks are counted.
    """
    moves = np.random.default_rng(seed + 1)

    def check():
        return _check(probe, np.random.default_rng(seed), tolerance, probes)

    findings = check()
    if any(finding.kinks for finding in findings):
        probe.move(moves)
        for first, second in zip(findings, check()):
            if first.kinks:
                kinks = first.kinks + second.kinks
                first.__dict__.update(second.__dict__)
                note = "kinks: checked again at a point beside it"
                first.kinks, first.note = kinks, "; ".join(filter(None, [second.note, note]))
    if any(finding.verdict == FAIL for finding in findings):
        # A wrong gradient is wrong beside the point, too; a kink that hid from the steps is not.
        probe.move(moves)
        for first, second in zip(findings, check()):
            if first.verdict == FAIL and second.verdict == OK:
                note = "right beside this point: a kink there"
                first.verdict, first.note = UNCLEAR, "; ".join(filter(None, [first.note, note]))
    return findings


def _check(probe, rng, tolerance, probes) -> list[Finding]:
    tops = probe.forward()
    projections = [_projection(top.shape, rng) for top in tops]
    plateau = _plateau(projections, tops)
    by_bottom, by_blob = probe.gradients(projections)
    layer = probe.layer

    def objective(bottoms, parameters) -> float:
        tops = probe.forward(bottoms, parameters)
        if any(top.shape != made.shape for top, made in zip(tops, projections)):
            return np.nan  # rows were selected anew, and others: there is a jump between
        return sum(
            float(np.vdot(projection, top.astype(np.float64)))
            for projection, top in zip(projections, tops)
        )

    findings = []
    for place, name in enumerate(probe.bottoms):
        base = probe.bottoms[name]
        finding = Finding(layer.name, layer.type, f"bottom {place} '{name}'", SKIPPED)
        finding.shape = base.shape
        finding.note = _no_features(probe, place, name, by_bottom[name])
        findings.append(finding)
        if not finding.note:

            def at(value, name=name):
                return objective({**probe.bottoms, name: value}, probe.parameters)

            _compare(finding, at, base, by_bottom[name], plateau, rng, tolerance, probes)
    for place, base in enumerate(probe.parameters):
        finding = Finding(layer.name, layer.type, f"weight {place}", SKIPPED, shape=base.shape)
        finding.note = _not_learned(probe, place)
        findings.append(finding)
        if not finding.note:

            def at(value, place=place):
                changed = list(probe.parameters)
                changed[place] = value
                return objective(probe.bottoms, changed)

            _compare(finding, at, base, by_blob[place], plateau, rng, tolerance, probes)
    return findings


def _plateau(projections, tops) -> float:
    """Rounding errors of the objective that nearby points share, and so do not show as noise.

    Half a unit in the last place of a number of a top; of many numbers, the standard deviation of
    their sum, with errors spread evenly over a unit each.
    """
    units = [
        (np.abs(projection) * np.spacing(np.abs(top))).astype(np.float64).ravel()
        for projection, top in zip(projections, tops)
    ]
    units = np.concatenate([*units, [0.0]])
    return max(float(units.max()) / 2, float(np.sqrt(np.sum(units**2) / 12)))


def _projection(shape, rng) -> np.ndarray:
    """Factors of the tops: float32 numbers, none near 0 and none near 1."""
    return (rng.choice([-1, 1], shape) * rng.uniform(1.3, 2.3, shape)).astype(np.float32)


def _no_features(probe, place: int, name: str, gradient: np.ndarray) -> str:
    """Why a bottom is not checked, or ""."""
    role = roles.bottom_roles(probe.layer).get(place)
    if role:
        return f"{role}: no gradient by design"
    row = roles.row_of(probe.layer)
    if row is not None and row.constants:
        return f"backward takes {row.constants} for constants, as the paper does: no derivative"
    value = probe.bottoms[name]
    whole = place > 0 and value.size > 0 and np.array_equal(value, np.round(value))
    if whole and (np.isnan(gradient).all() or not gradient.any()):
        return "whole numbers and no gradient: taken for labels"
    kind = roles.kind(probe.layer)
    foreign_loss = kind.endswith("Loss") and kind not in roles.KNOWN_LOSSES
    if foreign_loss and place > 0 and np.isnan(gradient).all():
        return "a loss that passes no gradient to it: taken for targets"
    return ""


def _not_learned(probe, place: int) -> str:
    if place in probe.state:
        return "kept by the layer itself: no gradient by design"
    row = roles.row_of(probe.layer)
    if row is not None and row.counts and roles.parameters(probe.layer).get("triplet"):
        return "triplet: true takes weights from the batch: no gradient by design"
    if row is not None and roles.settings(probe.layer).__dict__.get("update") == "DELTA":
        return "update: DELTA is the published rule, not the derivative"
    return ""


def _compare(finding, at, base, gradient, plateau, rng, tolerance, probes) -> None:
    """Fills a finding: slopes along single elements and along random directions."""
    if not np.isfinite(gradient).all():
        bad = tuple(int(i) for i in np.argwhere(~np.isfinite(gradient))[0])
        given = "no gradient" if np.isnan(gradient).all() else f"gradient {gradient[bad]}"
        finding.verdict, finding.where = FAIL, str(list(bad))
        finding.error, finding.note = float("inf"), given
        return
    greatest = float(np.abs(gradient).max(initial=0.0))
    length = float(np.linalg.norm(gradient))
    slopes = []
    for line in _lines(at, base, gradient, rng, probes):
        line.noise = max(line.noise, plateau)
        scale = FLOOR * (length if line.dense else greatest)
        slope = finite_differences.measure(
            line, line.step, line.noise, tolerance, scale, line.predicted
        )
        slopes.append((line, slope))
    if greatest == 0:
        # Where the layer says 0, the scale is that of the measured slopes.
        length = max((abs(s.value) - s.grain for line, s in slopes if line.dense), default=0.0)
        greatest = length / np.sqrt(max(base.size, 1))
    _judge(finding, slopes, (greatest, length), tolerance)


def _judge(finding, slopes, scales, tolerance) -> None:
    finding.probes = len(slopes)
    finding.crossings = sum(slope.crossings for _, slope in slopes)
    finding.kinks = sum(slope.kink for _, slope in slopes)
    resolved = coarsely = nonzero = 0
    worst: list[tuple[float, str]] = [(-1.0, ""), (-1.0, "")]  # of single elements; of directions
    for line, slope in slopes:
        if slope.kink:
            continue
        seen = max(abs(slope.value), abs(line.predicted))
        coarse = slope.grain / tolerance
        floor = max(FLOOR * scales[line.dense], coarse, np.finfo(np.float32).tiny)
        apart = abs(slope.value - line.predicted)
        error = apart / max(seen, floor)
        if error > tolerance:  # rounding may have moved the slope by a grain
            error = max(0.0, apart - slope.grain) / max(seen, floor)
        resolved += seen >= coarse
        coarsely += seen >= 10 * slope.grain
        nonzero += line.predicted != 0
        if error > worst[line.dense][0]:
            numbers = f"gradient {line.predicted:.6g}, differences {slope.value:.6g}"
            worst[line.dense] = error, f"{line.name}: {numbers}"
    # An element tells more than a direction.
    error, where = worst[0] if worst[0][0] > tolerance else max(worst)
    if error >= 0:
        finding.error, finding.where = error, where
    if finding.error is not None and finding.error > tolerance:
        finding.verdict = FAIL
    elif finding.probes - finding.kinks < min(SMOOTH, finding.probes):
        finding.verdict, finding.note = UNCLEAR, "kinks nearly everywhere: take a smaller batch"
    elif nonzero and not coarsely:
        finding.verdict, finding.note = UNCLEAR, "smaller than the rounding of the top"
    else:
        finding.verdict = OK
        finding.note = "" if nonzero else "zero, and so are the differences"
        if nonzero and not resolved:
            finding.note = "rounding of the top lets a tenth of it be seen, no less"


class _Line:
    """The objective along a line through `base`; see finite_differences.measure.

    dense: the direction moves all elements, not a single one.
    predicted: its slope by the layer's gradient. origin: the objective at `base`.
    """

    def __init__(self, name, at, origin, base, gradient, direction, size, dense):
        self.name, self.at, self.origin = name, at, origin
        self.direction, self.dense = direction, dense
        self.base = base.astype(np.float64)
        self.square = float(np.vdot(direction, direction))
        self.step = FIRST_STEP * size
        self.predicted = float(np.vdot(gradient.astype(np.float64), direction))
        self.noise = 0.0

    def __call__(self, t):
        if t == 0:
            return 0.0, self.origin
        moved = (self.base + t * self.direction).astype(np.float32)
        actual = float(np.vdot(moved - self.base, self.direction)) / self.square
        return actual, self.at(moved)

    def estimate_noise(self) -> float:
        """Of the objective at nine points a few units in the last place apart."""
        spacing = 2.0**-17 * self.step
        values = [self(k * spacing)[1] for k in range(-4, 5)]
        return finite_differences.rounding_noise(values) if np.isfinite(values).all() else 0.0


def _lines(at, base, gradient, rng, probes):
    """Lines along the gradient, along random directions and along single elements."""
    size = float(np.sqrt(np.mean(np.square(base, dtype=np.float64)))) if base.any() else 0.1
    origin = at(base)
    directions = [("along the gradient", gradient)] if gradient.any() else []
    directions += [
        (f"random direction {number}", rng.choice([-1.0, 1.0], base.shape))
        for number in range(1, DIRECTIONS + 1)
    ]
    dense = []
    for name, direction in directions:
        direction = direction / np.sqrt(np.mean(np.square(direction, dtype=np.float64)))
        dense.append(_Line(name, at, origin, base, gradient, direction, size, True))
    # One line may meet little of the rounding by chance.
    noise = max(line.estimate_noise() for line in dense[:NOISE_LINES])
    for line in dense:
        line.noise = noise
        yield line
    noise = 0.0
    for number, element in enumerate(_elements(gradient, rng, probes)):
        direction = np.zeros(base.shape)
        direction[element] = 1
        name = str([int(i) for i in element])
        step_size = max(size, abs(float(base[element])) / 8)
        line = _Line(name, at, origin, base, gradient, direction, step_size, False)
        if number < NOISE_LINES:
            noise = max(noise, line.estimate_noise())
        line.noise = noise
        yield line


def _elements(gradient, rng, probes):
    """The element with the greatest gradient, and others at random."""
    if gradient.size == 0:
        return []
    first = int(np.abs(gradient).argmax())
    order = [first] + [int(i) for i in rng.permutation(gradient.size) if i != first]
    return [np.unravel_index(i, gradient.shape) for i in order[:probes]]


def one_line(text: str) -> str:
    return " ".join(text.split())
