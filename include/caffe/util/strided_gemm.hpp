#ifndef CAFFE_UTIL_STRIDED_GEMM_HPP_
#define CAFFE_UTIL_STRIDED_GEMM_HPP_

#include "caffe/util/mkl_alternate.hpp"

namespace caffe {

/// C = alpha op(A) op(B) + beta C of row-major matrices, as caffe_cpu_gemm,
/// whose rows may lie further apart than they are long: lda, ldb and ldc
/// elements. So a product can use some columns of a larger matrix in place.
inline void strided_gemm(CBLAS_TRANSPOSE trans_a, CBLAS_TRANSPOSE trans_b,
                         int m, int n, int k, float alpha, const float* a,
                         int lda, const float* b, int ldb, float beta, float* c,
                         int ldc) {
  cblas_sgemm(CblasRowMajor, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb,
              beta, c, ldc);
}

inline void strided_gemm(CBLAS_TRANSPOSE trans_a, CBLAS_TRANSPOSE trans_b,
                         int m, int n, int k, double alpha, const double* a,
                         int lda, const double* b, int ldb, double beta,
                         double* c, int ldc) {
  cblas_dgemm(CblasRowMajor, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb,
              beta, c, ldc);
}

}  // namespace caffe

#endif  // CAFFE_UTIL_STRIDED_GEMM_HPP_
