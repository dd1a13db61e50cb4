#ifndef CAFFE_UTIL_STRIDED_GEMM_GPU_HPP_
#define CAFFE_UTIL_STRIDED_GEMM_GPU_HPP_

#include "caffe/common.hpp"
#include "caffe/util/mkl_alternate.hpp"

// What strided_gemm.hpp does, on the GPU: for .cu files.

namespace caffe {

inline cublasOperation_t cublas_operation(CBLAS_TRANSPOSE trans) {
  return trans == CblasNoTrans ? CUBLAS_OP_N : CUBLAS_OP_T;
}

// cuBLAS has matrices by columns: what it sees is C^T = op(B)^T op(A)^T.
inline void strided_gpu_gemm(CBLAS_TRANSPOSE trans_a, CBLAS_TRANSPOSE trans_b,
                             int m, int n, int k, float alpha, const float* a,
                             int lda, const float* b, int ldb, float beta,
                             float* c, int ldc) {
  CUBLAS_CHECK(cublasSgemm(Caffe::cublas_handle(), cublas_operation(trans_b),
                           cublas_operation(trans_a), n, m, k, &alpha, b, ldb,
                           a, lda, &beta, c, ldc));
}

inline void strided_gpu_gemm(CBLAS_TRANSPOSE trans_a, CBLAS_TRANSPOSE trans_b,
                             int m, int n, int k, double alpha, const double* a,
                             int lda, const double* b, int ldb, double beta,
                             double* c, int ldc) {
  CUBLAS_CHECK(cublasDgemm(Caffe::cublas_handle(), cublas_operation(trans_b),
                           cublas_operation(trans_a), n, m, k, &alpha, b, ldb,
                           a, lda, &beta, c, ldc));
}

}  // namespace caffe

#endif  // CAFFE_UTIL_STRIDED_GEMM_GPU_HPP_
