#ifndef CAFFE_METRIC_NORM_CUH_
#define CAFFE_METRIC_NORM_CUH_

#include "caffe_metric/block.cuh"
#include "caffe_metric/grid.cuh"
#include "caffe_metric/norm.hpp"

// The kernels of Norm.

namespace caffe_metric {

// Vectors that are rows: a block each.

template <typename T>
__global__ void norm_rows(const int channels, const T eps, const T* x, T* y,
                          T* norms) {
  const size_t begin = static_cast<size_t>(blockIdx.x) * channels;
  const T norm = block_norm(channels, x + begin);
  const T factor = norm_factor(norm, eps);
  for (int k = threadIdx.x; k < channels; k += kBlockThreads) {
    y[begin + k] = x[begin + k] * factor;
  }
  if (threadIdx.x == 0) {
    norms[blockIdx.x] = norm;
  }
}

template <typename T>
__global__ void norm_rows_gradient(const int channels, const T eps, const T* y,
                                   const T* dy, const T* norms, T* dx) {
  const size_t begin = static_cast<size_t>(blockIdx.x) * channels;
  const T dot = block_dot(channels, dy + begin, y + begin);
  const T factor = norm_gradient_factor(norms[blockIdx.x], eps);
  for (int k = threadIdx.x; k < channels; k += kBlockThreads) {
    dx[begin + k] = norm_gradient(dy[begin + k], dot, y[begin + k], factor);
  }
}

// Vectors across further axes: a thread each, so that neighbouring threads
// read neighbouring elements.

template <typename T>
__global__ void norm_positions(const size_t vectors, const int channels,
                               const int inner_num, const T eps, const T* x,
                               T* y, T* norms) {
  for (size_t v = grid_index(); v < vectors; v += grid_step()) {
    const size_t begin = v / inner_num * channels * inner_num + v % inner_num;
    double square = 0;
    for (int c = 0; c < channels; ++c) {
      const double value = x[begin + static_cast<size_t>(c) * inner_num];
      square += value * value;
    }
    norms[v] = sqrt(square);
    const T factor = norm_factor(norms[v], eps);
    for (int c = 0; c < channels; ++c) {
      const size_t k = begin + static_cast<size_t>(c) * inner_num;
      y[k] = x[k] * factor;
    }
  }
}

template <typename T>
__global__ void norm_positions_gradient(const size_t vectors,
                                        const int channels, const int inner_num,
                                        const T eps, const T* y, const T* dy,
                                        const T* norms, T* dx) {
  for (size_t v = grid_index(); v < vectors; v += grid_step()) {
    const size_t begin = v / inner_num * channels * inner_num + v % inner_num;
    T dot = 0;
    for (int c = 0; c < channels; ++c) {
      const size_t k = begin + static_cast<size_t>(c) * inner_num;
      dot += dy[k] * y[k];
    }
    const T factor = norm_gradient_factor(norms[v], eps);
    for (int c = 0; c < channels; ++c) {
      const size_t k = begin + static_cast<size_t>(c) * inner_num;
      dx[k] = norm_gradient(dy[k], dot, y[k], factor);
    }
  }
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_NORM_CUH_
