"""A training, watched: one line of progress, and what it tells on the way."""

from __future__ import annotations

import time


def describe(status, max_iter=0):
    """One line on a training's status: iteration, loss, what the layers report, time left."""
    done, last = status.get("iteration", 0), status.get("max_iter", max_iter)
    parts = [f"{done}/{last}"]
    if (loss := status.get("loss")) is not None:
        parts.append(f"loss {loss:.4g}")
    parts += [f"{name} {value:.3g}" for name, value in status.get("reports", {}).items()]
    if status.get("images"):
        parts.append(f"{status['images']:.0f} images/s")
    if done < last and status.get("left") is not None:
        parts.append(f"{duration(status['left'])} left")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """In the two units that tell most: 90 s, 12 min, 3 h 20 min, 5 d 2 h."""
    seconds = round(seconds)
    if seconds < 100:
        return f"{seconds} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def watch(training, progress, note, warn):
    """Follows a Training to its end. Raises UserError if it fails."""
    with progress:
        while True:
            ended = False
            try:
                ended = training.poll()
            finally:
                _tell(training, progress, note, warn)
            if ended:
                return
            progress.show(describe(training.status, training.plan.max_iter))
            time.sleep(0.1)


def _tell(training, progress, note, warn):
    for lines, say in ((training.notes, note), (training.warnings, warn)):
        while lines:
            progress.clear()
            say(lines.pop(0))
