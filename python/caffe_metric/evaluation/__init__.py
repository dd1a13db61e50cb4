"""Embeddings of a data set, and how good they are."""
