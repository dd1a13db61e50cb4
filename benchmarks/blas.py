"""The matrix product of the BLAS that Caffe links, which is not the one inside NumPy."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np

ROW_MAJOR, NO_TRANS, TRANS, UPPER = 101, 111, 112, 121


def product(rows: int, columns: int, depth: int) -> Callable[[], None]:
    """A call that multiplies a (rows x depth) by the transpose of b (columns x depth).

    Two different operands: OpenBLAS does less work for x x^T of one matrix.
    """
    sgemm = _sgemm()
    rng = np.random.default_rng(1)
    a = rng.standard_normal((rows, depth), dtype=np.float32)
    b = rng.standard_normal((columns, depth), dtype=np.float32)
    out = np.zeros((rows, columns), np.float32)

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


def pair_products(rows: int, depth: int) -> Callable[[], None]:
    """The products that a loss over all pairs of rows and its gradient are made of, alone.

    The upper half of u u^T, by ssyrk, and a (rows x rows) matrix times u (rows x depth).
    """
    sgemm, ssyrk = _sgemm(), _library().cblas_ssyrk
    integer, real, pointer = ctypes.c_int, ctypes.c_float, ctypes.c_void_p
    ssyrk.argtypes = [integer] * 5 + [real, pointer, integer, real, pointer, integer]
    ssyrk.restype = None
    u = np.random.default_rng(1).standard_normal((rows, depth), dtype=np.float32)
    gram, gradient = np.zeros((rows, rows), np.float32), np.zeros((rows, depth), np.float32)

    def call() -> None:
        ssyrk(
            ROW_MAJOR, UPPER, NO_TRANS, rows, depth,
            1.0, u.ctypes.data, depth, 0.0, gram.ctypes.data, rows,
        )  # fmt: skip
        sgemm(
            ROW_MAJOR, NO_TRANS, NO_TRANS, rows, depth, rows,
            1.0, gram.ctypes.data, rows, u.ctypes.data, depth, 0.0, gradient.ctypes.data, depth,
        )  # fmt: skip

    call()
    expected = np.triu(u @ u.T) @ u
    if not np.allclose(gradient, expected, rtol=1e-2, atol=1e-3 * np.abs(expected).max()):
        raise RuntimeError("cblas_ssyrk and cblas_sgemm give another product than NumPy")
    return call


def _sgemm():
    sgemm = _library().cblas_sgemm
    integer, real, pointer = ctypes.c_int, ctypes.c_float, ctypes.c_void_p
    sgemm.argtypes = [integer] * 6 + [real, pointer, integer, pointer, integer]
    sgemm.argtypes += [real, pointer, integer]
    sgemm.restype = None
    return sgemm


def _library():
    import caffe

    # A name is looked up in the library and all that it links.
    return ctypes.CDLL(caffe._caffe.__file__)
