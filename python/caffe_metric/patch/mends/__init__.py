"""Known breaks of older Caffe trees with current compilers and libraries.

A mend looks for its break in a tree and edits only where it finds it.
"""

from __future__ import annotations

from caffe_metric.patch.mends import cmake, cplusplus, makefile, opencv, python
from caffe_metric.patch.mends.mend import Mend

MENDS = (*cplusplus.MENDS, *opencv.MENDS, *cmake.MENDS, *makefile.MENDS, *python.MENDS)

__all__ = ["MENDS", "Mend"]
