"""Adds the layers to a Caffe source tree, or takes them out again, byte for byte.

caffe.proto gets our messages and fields by its structure; layers, headers and gtests are copied
to where Caffe's own builds (CMake and Makefile) pick them up; known breaks with current compilers
and libraries are mended where the tree has them. All of it happens, or nothing. A tree that has
layers, messages or fields of our names is reported and left alone, unless --replace is given.
"""

from __future__ import annotations

from caffe_metric.patch.operations import ClashError, Report, Status, apply, check, revert

__all__ = [
    "ClashError",
    "Report",
    "Status",
    "apply",
    "check",
    "revert",
]
