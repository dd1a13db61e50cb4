#ifndef CAFFE_UTIL_ROW_PRODUCTS_HPP_
#define CAFFE_UTIL_ROW_PRODUCTS_HPP_

#include <algorithm>
#include <functional>

#include "caffe/util/parallel_parts.hpp"
#include "caffe/util/strided_gemm.hpp"

namespace caffe {

/// Calls body(begin, end) for blocks of the rows [0, m) of a product, in
/// threads of their own with one BLAS thread each. The blocks depend on m
/// alone: BLAS adds up in another order with each number of threads, so it is
/// not left to divide the work. They are large, each packs the other operand.
inline void ForProductRows(int m, const std::function<void(int, int)>& body) {
  const int block = std::min(std::max(128, std::min(m / 4, 256)), (m + 1) / 2);
  const int parts = m < 1 ? 0 : (m + block - 1) / block;
  ParallelParts(parts, [&body, m, block](int part, int) {
    body(part * block, std::min(m, (part + 1) * block));
  });
}

/// strided_gemm with the same bits for any number of threads.
template <typename Dtype>
void RowProducts(CBLAS_TRANSPOSE trans_a, CBLAS_TRANSPOSE trans_b, int m, int n,
                 int k, Dtype alpha, const Dtype* a, int lda, const Dtype* b,
                 int ldb, Dtype beta, Dtype* c, int ldc) {
  ForProductRows(m, [=](int begin, int end) {
    const size_t step = trans_a == CblasNoTrans ? lda : 1;
    strided_gemm(trans_a, trans_b, end - begin, n, k, alpha, a + begin * step,
                 lda, b, ldb, beta, c + static_cast<size_t>(begin) * ldc, ldc);
  });
}

}  // namespace caffe

#endif  // CAFFE_UTIL_ROW_PRODUCTS_HPP_
