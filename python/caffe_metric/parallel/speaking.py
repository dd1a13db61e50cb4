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


@contextlib.contextmanager
def one_voice(world):
    """Within, a UserError names its rank, and waits for its turn to be shown."""
    try:
        yield
    except UserError as error:
        if world.size == 1:
            raise
        if world.rank:
            time.sleep(min(MOST_PATIENCE, PATIENCE + EACH_PATIENCE * world.rank))
        raise UserError(f"{world.name}: {error}") from error
