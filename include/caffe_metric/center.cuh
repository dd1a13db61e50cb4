#ifndef CAFFE_METRIC_CENTER_CUH_
#define CAFFE_METRIC_CENTER_CUH_

#include "caffe_metric/block.cuh"
#include "caffe_metric/center.hpp"
#include "caffe_metric/labels.hpp"

namespace caffe_metric {

// x - c_y of a row, element by element; 0 of a label that is none: the verdict
// on it is the check's, and comes later.
template <typename T>
struct CenterDifference {
  const T* x;
  const T* center;  // NULL: none

  __device__ CenterDifference(int row, int dim, int classes, const T* features,
                              const T* labels, const T* centers)
      : x(features + static_cast<size_t>(row) * dim), center(NULL) {
    const int y = label_index(labels[row], classes);
    if (y >= 0) {
      center = centers + static_cast<size_t>(y) * dim;
    }
  }
  __device__ T operator[](int k) const {
    return center ? x[k] - center[k] : T(0);
  }
};

// A block a row: the square of its difference to squares[row].
template <typename T>
__global__ void center_row_square(const int dim, const int classes, const T* x,
                                  const T* labels, const T* centers,
                                  double* squares, const RowCheck<T> check) {
  const CenterDifference<T> difference(blockIdx.x, dim, classes, x, labels,
                                       centers);
  double sum = 0;
  for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
    const T d = difference[k];
    sum += static_cast<double>(d) * d;
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) {
    squares[blockIdx.x] = sum;
    check_row(check, blockIdx.x, sum);
  }
}

// A block a row: its gradient to dx, unless that is NULL, and, unless
// centers_diff is NULL, by the first row of its class the differences of all
// rows of that class, in their order, to the centre's diff.
template <typename T>
__global__ void center_gradient(const CenterUpdate update, const int rows,
                                const int dim, const int classes, const T* x,
                                const T* labels, const T* centers,
                                const T* loss_diff, T* dx, T* centers_diff) {
  const T scale = loss_diff[0] / rows;
  const T label = labels[blockIdx.x];
  const CenterDifference<T> own(blockIdx.x, dim, classes, x, labels, centers);
  for (int k = threadIdx.x; dx && k < dim; k += kBlockThreads) {
    dx[static_cast<size_t>(blockIdx.x) * dim + k] = scale * own[k];
  }
  if (!centers_diff) {
    return;
  }
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
  const T factor = center_factor(update, scale, n);
  T* diff = centers_diff + static_cast<size_t>(label) * dim;
  for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
    T sum = 0;
    for (int i = blockIdx.x; i < rows; ++i) {
      if (labels[i] == label) {
        sum -= x[static_cast<size_t>(i) * dim + k] - own.center[k];
      }
    }
    diff[k] += factor * sum;
  }
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_CENTER_CUH_
