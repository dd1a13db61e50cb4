"""The losses on arrays: Gram matrices by NumPy, rules by a backend, sums and normalisers.

The Python layers are thin adapters over these; they serve without Caffe too.
"""
