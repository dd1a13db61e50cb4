"""Of several ranks one says what went wrong, and one shows how far the training is."""

from __future__ import annotations

import contextlib
import time

from caffe_metric.support.errors import UserError

# mpirun ends the others once a rank has failed; so long they let rank 0, and those before them,
# speak first.
PATIENCE = 3.0
EACH_PATIENCE = 0.5
MOST_PATIENCE = 15.0
# More than that a rank waits that has lost another: who died by itself knows better why.
LOST_PATIENCE = 2.0


def patience(rank: int) -> float:
    """Seconds that a rank lets others speak first."""
    return min(MOST_PATIENCE, PATIENCE + EACH_PATIENCE * rank) if rank else 0.0


@contextlib.contextmanager
def one_voice(world):
    """Within, a UserError names its rank, and waits for its turn to be shown."""
    try:
        yield
    except UserError as error:
        if world.size == 1:
            raise
        time.sleep(patience(world.rank))
        raise UserError(f"{world.name}: {error}") from error


@contextlib.contextmanager
def last_to_speak(ranks):
    """Within, a rank that has lost another waits until that one, if it has died, has said why."""
    try:
        yield
    except Exception:
        # Caffe's layers make a ValueError of Lost.
        if ranks.lost:
            time.sleep(patience(ranks.size) + LOST_PATIENCE)
        raise
