#ifndef CAFFE_METRIC_CENTER_CUH_
#define CAFFE_METRIC_CENTER_CUH_

#include "caffe_metric/block.cuh"
#include "caffe_metric/center.hpp"
#include "caffe_metric/labels.hpp"

namespace caffe_metric {

// A block a row: difference = x - c_y, and its square to squares[row]. A label
// that is none gives 0: the verdict on it is the check's, and comes later.
template <typename T>
__global__ void center_row_difference(const int dim, const int classes,
                                      const T* x, const T* labels,
                                      const T* centers, T* difference,
                                      double* squares,
                                      const RowCheck<T> check) {
  const size_t row = static_cast<size_t>(blockIdx.x) * dim;
  const int y = label_index(labels[blockIdx.x], classes);
  const T* c = centers + static_cast<size_t>(y < 0 ? 0 : y) * dim;
  double sum = 0;
  for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
    const T d = y < 0 ? T(0) : x[row + k] - c[k];
    difference[row + k] = d;
    sum += static_cast<double>(d) * d;
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) {
    squares[blockIdx.x] = sum;
    check_row(check, blockIdx.x, sum);
  }
}

// A block a row: the first row of its class adds the differences of all rows of
// that class, in their order, to the centre's diff; the other blocks end.
template <typename T>
__global__ void add_center_diff(const CenterUpdate update, const int rows,
                                const int dim, const T* labels,
                                const T* difference, const T* loss_diff,
                                T* centers_diff) {
  const T label = labels[blockIdx.x];
  int before = 0;
  int n = 0;
  for (int i = threadIdx.x; i < rows; i += kBlockThreads) {
    if (labels[i] == label) {
      n += 1;
      before += i < static_cast<int>(blockIdx.x) ? 1 : 0;
    }
  }
  if (block_sum(before) > 0) {
    return;
  }
  n = block_sum(n);
  const T factor = center_factor(update, loss_diff[0] / rows, n);
  T* diff = centers_diff + static_cast<size_t>(label) * dim;
  for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
    T sum = 0;
    for (int i = blockIdx.x; i < rows; ++i) {
      if (labels[i] == label) {
        sum -= difference[static_cast<size_t>(i) * dim + k];
      }
    }
    diff[k] += factor * sum;
  }
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_CENTER_CUH_
