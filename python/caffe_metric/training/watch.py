"""A training, watched: one line of progress, a warning on collapse."""

from __future__ import annotations

import math
import time

# So many displays in a row near the collapsed loss make a warning.
COLLAPSE_DISPLAYS = 5
COLLAPSE_TOLERANCE = 0.01


def describe(log, plan, seconds=0.0):
    """One line on a TrainingLog: iteration, loss, what the layers report, time left."""
    parts = [f"{log.iteration}/{plan.max_iter}"]
    if (loss := log.last("loss")) is not None:
        parts.append(f"loss {loss:.4g}")
    for top, meaning in plan.reports.items():
        if (value := log.last(top)) is not None:
            parts.append(f"{meaning} {value:.3g}")
    if log.iteration and seconds > 1:
        left = seconds * (plan.max_iter / log.iteration - 1)
        parts.append(f"{max(0, left):.0f} s left")
    return "  ".join(parts)


def collapsed_loss(log, plan):
    """The name of a loss that has stood where equal embeddings put it, or None.

    The loss alone can stand there by chance: every triplet must be active, too, and the distance
    to negatives vanish, where tops tell of these.
    """
    newest = {"active": 1.0, "d_an": 0.0}
    for top, meaning in plan.reports.items():
        newest[meaning] = log.last(top, newest.get(meaning))
    for top, value in plan.collapsed.items():
        if newest["active"] < 1 - COLLAPSE_TOLERANCE or newest["d_an"] > COLLAPSE_TOLERANCE * value:
            continue
        for name in (top, "loss output"):
            _, values = log.train.get(name, ((), ()))
            last = values[-COLLAPSE_DISPLAYS:]
            if len(last) == COLLAPSE_DISPLAYS and all(
                math.isclose(number, value, rel_tol=COLLAPSE_TOLERANCE) for number in last
            ):
                return top
    return None


def watch(training, plan, progress, warn):
    """Follows a Training to its end. Raises UserError if it fails; warns once on collapse."""
    warned = False
    with progress:
        while not training.poll():
            progress.show(describe(training.log, plan, training.seconds))
            if not warned and (top := collapsed_loss(training.log, plan)):
                warned = True
                progress.clear()
                warn(
                    f"iteration {training.log.iteration}: {top} stands at its value for equal "
                    "embeddings: they collapse (a lower base_lr or an easier mining may help)"
                )
            time.sleep(0.1)
