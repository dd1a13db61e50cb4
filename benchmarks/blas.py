"""The matrix product of the BLAS that Caffe links, which is not the one inside NumPy."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np

ROW_MAJOR, NO_TRANS, TRANS = 101, 111, 112


def product(rows: int, columns: int, depth: int) -> Callable[[], None]:
    """A call that multiplies a (rows x depth) by the transpose of b (columns x depth).

    Two different operands: OpenBLAS does less work for x x^T of one matrix.
    """
    import caffe

    # A name is looked up in the library and all that it links.
    sgemm = ctypes.CDLL(caffe._caffe.__file__).cblas_sgemm
    rng = np.random.default_rng(1)
    a = rng.standard_normal((rows, depth), dtype=np.float32)
    b = rng.standard_normal((columns, depth), dtype=np.float32)
    out = np.zeros((rows, columns), np.float32)
    integer, real, pointer = ctypes.c_int, ctypes.c_float, ctypes.c_void_p
    sgemm.argtypes = [integer] * 6 + [real, pointer, integer, pointer, integer]
    sgemm.argtypes += [real, pointer, integer]
    sgemm.restype = None

    def call() -> None:
        sgemm(
            ROW_MAJOR, NO_TRANS, TRANS, rows, columns, depth,
            1.0, a.ctypes.data, depth, b.ctypes.data, depth, 0.0, out.ctypes.data, columns,
        )  # fmt: skip

    call()
    expected = a[0] @ b[-1]
    if not np.isclose(out[0, -1], expected, rtol=1e-3, atol=1e-3):
        raise RuntimeError(f"cblas_sgemm gives {out[0, -1]}, must be {expected}")
    return call
