"""The averages by which BatchNorm normalises in phase TEST.

A TRAIN forward adds the batch's mean and variance to them, and shrinks what was there to
moving_average_fraction: they speak of the last 1 / (1 - fraction) iterations. Caffe's default,
0.999, is for trainings of a hundred thousand.
"""

from __future__ import annotations

# A training shorter than so many windows is tested with averages of what the net was before.
WINDOWS = 10


def window(layer) -> float:
    """The iterations that count; infinite for a fraction of 1."""
    fraction = layer.batch_norm_param.moving_average_fraction
    return 1 / (1 - fraction) if fraction < 1 else float("inf")


def averages(layers) -> list:
    """The BatchNorm layers that keep averages in TRAIN."""
    return [
        layer
        for layer in layers
        if layer.type == "BatchNorm"
        and hasattr(layer, "batch_norm_param")  # the schema may be a part of Caffe's
        and not layer.batch_norm_param.use_global_stats
    ]


def fitting(iterations: int) -> float:
    """A moving_average_fraction for so many iterations: a twentieth of them counts.

    10 iterations at least, and 1000, as Caffe has it, at most.
    """
    return round(1 - 1 / min(1000.0, max(10.0, iterations / 20)), 4)


def complaint(layers, iterations: int) -> str | None:
    """What is wrong with the averages of a training of so many iterations, None where nothing."""
    longest = 1.001 / (1 - fitting(iterations))
    wide = [
        layer
        for layer in averages(layers)
        if window(layer) > longest and window(layer) * WINDOWS > iterations
    ]
    if not wide:
        return None
    most = max(map(window, wide))
    return (
        f"BatchNorm in {len(wide)} layer(s), '{wide[0].name}' the first, averages over its last "
        f"{most:.0f} iterations, of {iterations}: phase TEST sees what the net was before "
        f"(moving_average_fraction: {fitting(iterations):g} fits; `caffe-metric weights "
        "--batch-norm` measures a trained model anew; docs/training.md)"
    )
