"""Cosine similarity, in blocks of rows so that memory stays bounded."""

from __future__ import annotations

import numpy as np

BLOCK = 1024


def unit_rows(embeddings):
    """Rows scaled to length 1, float32 [N, D]; a zero row stays zero.

    Raises ValueError for anything but a finite matrix.
    """
    embeddings = np.asarray(embeddings)
    if embeddings.ndim != 2:
        raise ValueError(f"embeddings: [N, D] expected, not shape {embeddings.shape}")
    if not np.isfinite(embeddings).all():
        row = int(np.flatnonzero(~np.isfinite(embeddings).all(axis=1))[0])
        raise ValueError(f"embeddings: row {row} is not finite")
    # Divided by the largest entry first: squares neither overflow nor vanish.
    embeddings = embeddings.astype(np.float64)
    largest = np.abs(embeddings).max(axis=1, keepdims=True, initial=0)
    embeddings /= np.where(largest > 0, largest, 1)
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return (embeddings / np.where(norms > 0, norms, 1)).astype(np.float32)


def similarity_blocks(embeddings, block=BLOCK):
    """Yields (first row, cosine similarities of some rows with all, float32 [<= block, N])."""
    unit = unit_rows(embeddings)
    for start in range(0, len(unit), block):
        yield start, unit[start : start + block] @ unit.T


def pair_similarities(embeddings, labels, block=BLOCK):
    """Yields, block by block, each unordered pair once: (similarities, same), both 1-D.

    same: bool, whether the two rows have one label.
    """
    labels = np.asarray(labels)
    columns = np.arange(len(labels))
    for start, similarities in similarity_blocks(embeddings, block):
        rows = columns[start : start + len(similarities), None]
        upper = columns[None, :] > rows
        same = labels[rows] == labels[None, :]
        yield similarities[upper], same[upper]
