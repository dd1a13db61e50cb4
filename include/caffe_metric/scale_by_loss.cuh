#ifndef CAFFE_METRIC_SCALE_BY_LOSS_CUH_
#define CAFFE_METRIC_SCALE_BY_LOSS_CUH_

#include <cstddef>

namespace caffe_metric {

// dx = the gradient of a sum of losses, times the loss's diff and `own`, one
// over what the sum is divided by.
template <typename T>
__global__ void scale_by_loss(const size_t n, const T* gradient,
                              const T* loss_diff, const T own, T* dx) {
  const T scale = loss_diff[0] * own;
  const size_t step = static_cast<size_t>(blockDim.x) * gridDim.x;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
       i < n; i += step) {
    dx[i] = scale * gradient[i];
  }
}

// The same, added to dx.
template <typename T>
__global__ void add_by_loss(const size_t n, const T* gradient,
                            const T* loss_diff, const T own, T* dx) {
  const T scale = loss_diff[0] * own;
  const size_t step = static_cast<size_t>(blockDim.x) * gridDim.x;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
       i < n; i += step) {
    dx[i] += scale * gradient[i];
  }
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_SCALE_BY_LOSS_CUH_
