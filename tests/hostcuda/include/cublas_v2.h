#ifndef HOSTCUDA_CUBLAS_V2_H_
#define HOSTCUDA_CUBLAS_V2_H_

// Stands in for cuBLAS, by CBLAS: arrays must be device memory, scalars and
// results are the host's, as in cuBLAS's default pointer mode.

#include <cblas.h>

#include "cuda_runtime.h"

typedef int* cublasHandle_t;
enum cublasStatus_t {
  CUBLAS_STATUS_SUCCESS = 0,
  CUBLAS_STATUS_NOT_INITIALIZED = 1,
  CUBLAS_STATUS_ALLOC_FAILED = 3,
  CUBLAS_STATUS_INVALID_VALUE = 7,
  CUBLAS_STATUS_ARCH_MISMATCH = 8,
  CUBLAS_STATUS_MAPPING_ERROR = 11,
  CUBLAS_STATUS_EXECUTION_FAILED = 13,
  CUBLAS_STATUS_INTERNAL_ERROR = 14,
  CUBLAS_STATUS_NOT_SUPPORTED = 15,
  CUBLAS_STATUS_LICENSE_ERROR = 16
};
enum cublasOperation_t { CUBLAS_OP_N, CUBLAS_OP_T };

namespace hostcuda {

inline CBLAS_TRANSPOSE ToCblas(cublasOperation_t op) {
  return op == CUBLAS_OP_N ? CblasNoTrans : CblasTrans;
}

inline void CountBlas(const char* name, int m, int n, int k) {
  ++counters.blas_calls;
  Trace("blas %s %d %d %d", name, m, n, k);
}

// Elements that a rows x columns matrix with leading dimension `ld` spans.
inline size_t Span(int rows, int columns, int ld) {
  return rows > 0 && columns > 0 ? size_t(columns - 1) * ld + rows : 0;
}
inline size_t Span(int n, int stride) { return Span(1, n, stride); }

}  // namespace hostcuda

inline cublasStatus_t cublasCreate(cublasHandle_t* handle) {
  static int any;
  *handle = &any;
  return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasDestroy(cublasHandle_t) {
  return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasSetStream(cublasHandle_t, cudaStream_t) {
  return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasGetStream(cublasHandle_t, cudaStream_t* stream) {
  *stream = NULL;
  return CUBLAS_STATUS_SUCCESS;
}

// Once a type: U is cuBLAS's letter, L is CBLAS's.
#define HOSTCUDA_CUBLAS(U, L, T)                                              \
  inline cublasStatus_t cublas##U##gemm(                                      \
      cublasHandle_t, cublasOperation_t op_a, cublasOperation_t op_b, int m,  \
      int n, int k, const T* alpha, const T* a, int lda, const T* b, int ldb, \
      const T* beta, T* c, int ldc) {                                         \
    using hostcuda::Open;                                                     \
    using hostcuda::Span;                                                     \
    hostcuda::CountBlas(#L "gemm", m, n, k);                                  \
    const bool plain_a = op_a == CUBLAS_OP_N, plain_b = op_b == CUBLAS_OP_N;  \
    const size_t size_a = plain_a ? Span(m, k, lda) : Span(k, m, lda);        \
    const size_t size_b = plain_b ? Span(k, n, ldb) : Span(n, k, ldb);        \
    cblas_##L##gemm(CblasColMajor, hostcuda::ToCblas(op_a),                   \
                    hostcuda::ToCblas(op_b), m, n, k, *alpha,                 \
                    Open(a, size_a, "gemm"), lda, Open(b, size_b, "gemm"),    \
                    ldb, *beta, Open(c, Span(m, n, ldc), "gemm"), ldc);       \
    return CUBLAS_STATUS_SUCCESS;                                             \
  }                                                                           \
  inline cublasStatus_t cublas##U##gemv(                                      \
      cublasHandle_t, cublasOperation_t op, int m, int n, const T* alpha,     \
      const T* a, int lda, const T* x, int incx, const T* beta, T* y,         \
      int incy) {                                                             \
    using hostcuda::Open;                                                     \
    using hostcuda::Span;                                                     \
    hostcuda::CountBlas(#L "gemv", m, n, 1);                                  \
    const bool plain = op == CUBLAS_OP_N;                                     \
    cblas_##L##gemv(CblasColMajor, hostcuda::ToCblas(op), m, n, *alpha,       \
                    Open(a, Span(m, n, lda), "gemv"), lda,                    \
                    Open(x, Span(plain ? n : m, incx), "gemv"), incx, *beta,  \
                    Open(y, Span(plain ? m : n, incy), "gemv"), incy);        \
    return CUBLAS_STATUS_SUCCESS;                                             \
  }                                                                           \
  inline cublasStatus_t cublas##U##axpy(cublasHandle_t, int n,                \
                                        const T* alpha, const T* x, int incx, \
                                        T* y, int incy) {                     \
    using hostcuda::Open;                                                     \
    using hostcuda::Span;                                                     \
    hostcuda::CountBlas(#L "axpy", n, 1, 1);                                  \
    cblas_##L##axpy(n, *alpha, Open(x, Span(n, incx), "axpy"), incx,          \
                    Open(y, Span(n, incy), "axpy"), incy);                    \
    return CUBLAS_STATUS_SUCCESS;                                             \
  }                                                                           \
  inline cublasStatus_t cublas##U##scal(cublasHandle_t, int n,                \
                                        const T* alpha, T* x, int incx) {     \
    hostcuda::CountBlas(#L "scal", n, 1, 1);                                  \
    cblas_##L##scal(n, *alpha,                                                \
                    hostcuda::Open(x, hostcuda::Span(n, incx), "scal"),       \
                    incx);                                                    \
    return CUBLAS_STATUS_SUCCESS;                                             \
  }                                                                           \
  inline cublasStatus_t cublas##U##copy(cublasHandle_t, int n, const T* x,    \
                                        int incx, T* y, int incy) {           \
    using hostcuda::Open;                                                     \
    using hostcuda::Span;                                                     \
    hostcuda::CountBlas(#L "copy", n, 1, 1);                                  \
    cblas_##L##copy(n, Open(x, Span(n, incx), "copy"), incx,                  \
                    Open(y, Span(n, incy), "copy"), incy);                    \
    return CUBLAS_STATUS_SUCCESS;                                             \
  }                                                                           \
  inline cublasStatus_t cublas##U##dot(cublasHandle_t, int n, const T* x,     \
                                       int incx, const T* y, int incy,        \
                                       T* result) {                           \
    using hostcuda::Open;                                                     \
    using hostcuda::Span;                                                     \
    hostcuda::CountBlas(#L "dot", n, 1, 1);                                   \
    ++hostcuda::counters.to_host;                                             \
    *result = cblas_##L##dot(n, Open(x, Span(n, incx), "dot"), incx,          \
                             Open(y, Span(n, incy), "dot"), incy);            \
    return CUBLAS_STATUS_SUCCESS;                                             \
  }                                                                           \
  inline cublasStatus_t cublas##U##asum(cublasHandle_t, int n, const T* x,    \
                                        int incx, T* result) {                \
    hostcuda::CountBlas(#L "asum", n, 1, 1);                                  \
    ++hostcuda::counters.to_host;                                             \
    *result = cblas_##L##asum(                                                \
        n, hostcuda::Open(x, hostcuda::Span(n, incx), "asum"), incx);         \
    return CUBLAS_STATUS_SUCCESS;                                             \
  }

HOSTCUDA_CUBLAS(S, s, float)
HOSTCUDA_CUBLAS(D, d, double)
#undef HOSTCUDA_CUBLAS

#endif  // HOSTCUDA_CUBLAS_V2_H_
