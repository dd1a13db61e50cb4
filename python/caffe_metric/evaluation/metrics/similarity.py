"""Cosine similarity, in tiles so that memory stays bounded."""

from __future__ import annotations

import numpy as np

BLOCK = 1024
TILE = 8192  # columns of a tile of BLOCK rows: 32 MiB
_ROWS = 1 << 16


def unit_rows(embeddings, reuse=False):
    """Rows scaled to length 1, float32 [N, D]; a zero row stays zero.

    reuse: a float32 array is scaled in place. Raises ValueError for anything but a finite matrix.
    """
    embeddings = np.asarray(embeddings)
    if embeddings.ndim != 2:
        raise ValueError(f"embeddings: [N, D] expected, not shape {embeddings.shape}")
    kept = reuse and embeddings.dtype == np.float32
    unit = embeddings if kept else np.empty(embeddings.shape, np.float32)
    for start in range(0, len(unit), _ROWS):
        rows = embeddings[start : start + _ROWS]
        if not np.isfinite(rows).all():
            row = start + int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
            raise ValueError(f"embeddings: row {row} is not finite")
        # Divided by the largest entry first: squares neither overflow nor vanish.
        rows = rows.astype(np.float64)
        largest = np.abs(rows).max(axis=1, keepdims=True, initial=0)
        rows /= np.where(largest > 0, largest, 1)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        unit[start : start + _ROWS] = rows / np.where(norms > 0, norms, 1)
    return unit


def similarity_blocks(unit, block=BLOCK):
    """Yields (first row, similarities of some unit rows with all, float32 [<= block, N])."""
    for start in range(0, len(unit), block):
        yield start, unit[start : start + block] @ unit.T


def upper_tiles(unit, block=BLOCK, tile=TILE):
    """Yields (rows, columns, similarities, wanted): each unordered pair of rows is wanted once.

    rows and columns are slices; wanted is None where all of a tile is, else bool of its shape.
    """
    for start in range(0, len(unit), block):
        rows = slice(start, min(start + block, len(unit)))
        for first in range(start, len(unit), tile):
            columns = slice(first, min(first + tile, len(unit)))
            wanted = None
            if first < rows.stop:
                across = np.arange(columns.start, columns.stop)
                wanted = across > np.arange(rows.start, rows.stop)[:, None]
            yield rows, columns, unit[rows] @ unit[columns].T, wanted
