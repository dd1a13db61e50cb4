"""Nets and solvers for the known ways to train, written from a trunk.

A preset fits margin, scale, lambda and rate to the number of classes and iterations, so that a net
of ten people and 400 iterations trains as well as one of ten thousand and 200,000. What fits few
classes was chosen on classes held out of those that are trained: docs/training.md.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

from caffe_metric.nets import batch_norm
from caffe_metric.support.files import replacing
from caffe_metric.training import trunks

# Of identities with fewer images an image comes twice in a batch.
IMAGES = 4
RATE = 0.01  # of thirty classes and more


@dataclasses.dataclass(frozen=True)
class Task:
    """What is trained: the classes and images of the source, iterations, images a batch.

    rate: base_lr of a stage that starts anew.
    """

    source: str
    classes: int
    images: int
    iterations: int
    batch: int
    rate: float
    embedding: str = ""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of a training: its head, its batches, its share of the iterations.

    further: it goes on with the weights of a stage before.
    """

    name: str
    head: Callable[[Task, int], str]
    by_identity: bool = False
    share: float = 1.0
    further: bool = False

    def rate(self, task) -> float:
        """base_lr; it falls to 0 within the stage."""
        if not self.further:
            return task.rate
        return task.rate * pace(task.classes) * min(1.0, max(0.1, 1000 / task.iterations))


@dataclasses.dataclass(frozen=True)
class Preset:
    """One way to train, and where it comes from."""

    stages: tuple[Stage, ...]
    text: str


# --- Heads: what stands behind the embedding ------------------------------------------------------


def _softmax(task, iterations):
    return f"""
layer {{ name: "softmax_classes" type: "InnerProduct" bottom: "{task.embedding}" top: "logits"
  param {{ lr_mult: 1 decay_mult: 1 }} param {{ lr_mult: 2 decay_mult: 0 }}
  inner_product_param {{ num_output: {task.classes} weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "logits" bottom: "label" top: "loss" }}
"""


def _triplet(task, iterations):
    margin = 0.2 * margin_share(task.classes)
    return f"""
layer {{ name: "norm" type: "Norm" bottom: "{task.embedding}" top: "unit" }}
layer {{ name: "loss" type: "TripletLoss" bottom: "unit" bottom: "label"
  top: "loss" top: "active" top: "d_ap" top: "d_an"
  triplet_loss_param {{ margin: {margin:.3g} mining: SEMIHARD }} }}
"""


def _margin(task, settings, frozen=False, annealed=True):
    rate = "param { lr_mult: 0 decay_mult: 0 }" if frozen else "param { lr_mult: 1 decay_mult: 1 }"
    shown = 'top: "lambda" ' if annealed else ""
    return f"""
layer {{ name: "classes" type: "MarginInnerProduct" bottom: "{task.embedding}" bottom: "label"
  top: "logits" {shown}{rate} param {{ lr_mult: 0 decay_mult: 0 }}
  margin_inner_product_param {{ num_output: {task.classes} weight_filler {{ type: "xavier" }}
    {settings} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "logits" bottom: "label" top: "loss" }}
"""


def margin_share(classes: int) -> float:
    """How much of the published margin, which is for thousands of classes, so many can bear.

    A fifth up to ten classes, all of it from a thousand on. Few classes leave no room between them
    for those that are not seen: a large margin draws each to a point.
    """
    return min(1.0, max(0.2, 0.2 + 0.4 * math.log10(classes / 10)))


def pace(classes: int) -> float:
    """How much of the rate so many classes can bear: C / 30, at least 0.3 and at most all of it.

    Few classes are soon told apart; a net that goes on at a high rate unlearns what it need not
    know of them, which is what tells others apart.
    """
    return min(1.0, max(0.3, classes / 30))


def _least(task):
    """Lambda's least: 5, as published, for thousands of classes."""
    return 5 / margin_share(task.classes)


def _lambda(task, iterations, start=1000.0):
    """From `start` down to its least after half of the iterations."""
    gamma = (start / _least(task) - 1) / max(1, 0.5 * iterations)
    return f"base: {start:g} gamma: {gamma:.4g} power: 1 lambda_min: {_least(task):.3g}"


def _a_softmax(task, iterations):
    return _margin(task, f"type: QUADRUPLE {_lambda(task, iterations)}")


def _atl(task, iterations):
    """The weights are unit features of samples: at unit length features meet them, too."""
    scale = min(64.0, 2 * scale_of(task.classes))
    settings = f"type: QUADRUPLE {_lambda(task, iterations)} triplet: true semihard: true"
    return _margin(task, f"{settings}\n    normalize_features: true scale: {scale:g}", frozen=True)


def _atl_second(task, iterations):
    """Lambda has come down in the first stage: it stays there."""
    least = _least(task)
    settings = f"type: QUADRUPLE base: {least:.3g} triplet: true semihard: true"
    return _margin(task, settings, frozen=True)


def scale_of(classes: int) -> float:
    """The scale of normalised logits: 8 to 64, and in between four times AdaCos's, of which few
    classes bear the same share as of the margin.

    AdaCos's is sqrt(2) ln(C - 1), for no margin (Zhang et al. 2019, eq. 12).
    """
    published = 4 * math.sqrt(2) * math.log(max(2, classes - 1))
    return round(min(64.0, max(8.0, published * margin_share(classes))), 1)


def _additive(task, name, published):
    margin, scale = published * margin_share(task.classes), scale_of(task.classes)
    settings = f"normalize_features: true scale: {scale:g} {name}: {margin:.3g}"
    return _margin(task, settings, annealed=False)


def _arcface(task, iterations):
    return _additive(task, "angular_margin", 0.5)


def _cosface(task, iterations):
    return _additive(task, "cosine_margin", 0.35)


PRESETS = {
    "a-softmax": Preset(
        (Stage("a-softmax", _a_softmax),), "A-Softmax, lambda annealed (Liu et al. 2017)"
    ),
    "atl-step": Preset(
        (
            Stage("a-softmax", _a_softmax, share=0.6),
            Stage("atl", _atl_second, by_identity=True, share=0.4, further=True),
        ),
        "angular triplet loss by steps: A-Softmax, then its weights as samples, semi-hard",
    ),
    "atl-direct": Preset(
        (Stage("atl", _atl, by_identity=True),),
        "angular triplet loss from the start: weights are samples, semi-hard",
    ),
    "softmax-then-triplet": Preset(
        (
            Stage("softmax", _softmax, share=0.5),
            Stage("triplet", _triplet, by_identity=True, share=0.5, further=True),
        ),
        "softmax, then triplets mined in batches by identity (Parkhi et al. 2015)",
    ),
    "arcface": Preset(
        (
            Stage("softmax", _softmax, share=0.5),
            Stage("arcface", _arcface, share=0.5, further=True),
        ),
        "softmax, then ArcFace (Deng et al. 2019)",
    ),
    "cosface": Preset(
        (
            Stage("softmax", _softmax, share=0.5),
            Stage("cosface", _cosface, share=0.5, further=True),
        ),
        "softmax, then CosFace (Wang et al. 2018)",
    ),
    "softmax": Preset((Stage("softmax", _softmax),), "softmax alone: the baseline"),
}


# --- The nets and solvers -------------------------------------------------------------------------

READER = """
layer {{ name: "train_data" type: "Python" top: "{blob}" top: "label" include {{ phase: TRAIN }}
  param {{ lr_mult: 0 decay_mult: 0 }}
  python_param {{ module: "caffe_metric.layers" layer: "IdentityDataLayer"
    param_str: {settings} }} }}
"""
SOLVER = """net: {net}
type: "SGD"
base_lr: {rate:.3g}
momentum: 0.9
weight_decay: 0.0005
lr_policy: "poly"
power: 1
max_iter: {iterations}
display: {display}
average_loss: {display}
snapshot: {snapshot}
snapshot_prefix: {prefix}
random_seed: 1
solver_mode: CPU
"""


def default_iterations(images: int, batch: int) -> int:
    """Twenty epochs, 400 iterations at least."""
    return max(400, 20 * images // batch)


def write(preset: str, trunk: trunks.Trunk, task: Task, folder) -> list[tuple[Path, str]]:
    """Writes nets and solvers; returns (solver, what it is) of each stage, in their order.

    The last stage is DIR/solver.prototxt and DIR/net.prototxt. Raises UserError.
    """
    folder, stages = Path(folder), PRESETS[preset].stages
    written, before = [], ""
    for number, stage in enumerate(stages, 1):
        name = "" if number == len(stages) else f"{number}_"
        iterations = max(1, round(task.iterations * stage.share))
        net, solver = folder / f"{name}net.prototxt", folder / f"{name}solver.prototxt"
        prefix = folder / stage.name
        settings = SOLVER.format(
            net=_quoted(net),
            rate=stage.rate(task),
            iterations=iterations,
            display=max(1, min(100, iterations // 50)),
            snapshot=max(1, iterations // 4),
            prefix=_quoted(prefix),
        )
        if before:
            settings += f"weights: {_quoted(before)}\n"
        _save(net, _net(f"{preset}: {stage.name}", stage, trunk, task, iterations))
        _save(solver, settings)
        written.append((solver, f"{stage.name}, {iterations} iterations"))
        before = f"{prefix}_iter_{iterations}.caffemodel"
    return written


def _net(name, stage, trunk, task, iterations):
    settings = {"source": task.source, **trunk.picture}
    if stage.by_identity:
        settings.update(layout="PK", identities=max(2, task.batch // IMAGES), images=IMAGES)
        if settings["identities"] > task.classes:
            settings["identities"] = task.classes
            settings["images"] = max(2, task.batch // task.classes)
    else:
        settings.update(layout="SHUFFLED", batch_size=task.batch)
    reader = READER.format(blob=trunk.blob, settings=_quoted(json.dumps(settings)))
    test = trunk.test_reader(task.source)
    layers = trunk.text(batch_norm.fitting(iterations))
    head = stage.head(dataclasses.replace(task, embedding=trunk.embedding), iterations)
    return f"name: {_quoted(name)}\n{reader.lstrip()}{test}{layers}{head}"


def _quoted(text) -> str:
    """A string of a prototxt."""
    return json.dumps(str(text), ensure_ascii=False)


def _save(path, text):
    with replacing(path) as temporary:
        temporary.write_text(text)
