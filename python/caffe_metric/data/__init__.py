"""Images, lists, LMDB, order, batches by identity, alignment, mining."""
