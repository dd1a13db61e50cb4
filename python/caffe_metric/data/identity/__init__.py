"""Batches by identity: which images stand in a batch, and their decoding in worker processes."""
