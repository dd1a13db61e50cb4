#ifndef CAFFE_METRIC_REPORT_CUH_
#define CAFFE_METRIC_REPORT_CUH_

#include <stdint.h>

#include "caffe_metric/block.cuh"
#include "caffe_metric/labels.hpp"

// Kernels with which a loss layer on the GPU comes to its one copy to the
// host: what every block adds up, and whether the input was bad.

namespace caffe_metric {

// A block a row: bad[row] is 1 if the row holds NaN or Inf. dim may be 1.
template <typename T>
__global__ void check_finite(const int dim, const T* x, double* bad) {
  const T* row = x + static_cast<size_t>(blockIdx.x) * dim;
  T sum = 0;
  for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
    sum += row[k] - row[k];  // 0, or NaN
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) {
    bad[blockIdx.x] = sum == 0 ? 0 : 1;
  }
}

// A thread a row: adds 1 to bad[row] if its label is none or, with pair_size
// > 0, if an anchor's label is not that of the row after it.
template <typename T>
__global__ void check_labels(const int rows, const int pair_size,
                             const int classes, const T* labels, double* bad) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < rows) {
    const bool pair = pair_size > 0 && i % pair_size == 0;
    const bool good =
        is_label(labels[i], classes) && !(pair && labels[i] != labels[i + 1]);
    bad[i] += good ? 0 : 1;
  }
}

// One block: the sum of each column.
static __global__ void sum_columns(const int rows, const int columns,
                                   const double* matrix, double* sums) {
  for (int c = 0; c < columns; ++c) {
    double sum = 0;
    for (int i = threadIdx.x; i < rows; i += kBlockThreads) {
      sum += matrix[static_cast<size_t>(i) * columns + c];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
      sums[c] = sum;
    }
  }
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_REPORT_CUH_
