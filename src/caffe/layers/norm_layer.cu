#include <vector>

#include "caffe/layers/norm_layer.hpp"
#include "caffe_metric/block.cuh"
#include "caffe_metric/norm.hpp"

namespace caffe {

using caffe_metric::kBlockThreads;

// Vectors that are rows: a block each.

template <typename Dtype>
__global__ void NormRows(const int channels, const Dtype eps, const Dtype* x,
                         Dtype* y, Dtype* norms) {
  const size_t begin = static_cast<size_t>(blockIdx.x) * channels;
  const Dtype norm = caffe_metric::block_norm(channels, x + begin);
  const Dtype factor = caffe_metric::norm_factor(norm, eps);
  for (int k = threadIdx.x; k < channels; k += kBlockThreads) {
    y[begin + k] = x[begin + k] * factor;
  }
  if (threadIdx.x == 0) {
    norms[blockIdx.x] = norm;
  }
}

template <typename Dtype>
__global__ void NormRowsGradient(const int channels, const Dtype eps,
                                 const Dtype* y, const Dtype* dy,
                                 const Dtype* norms, Dtype* dx) {
  const size_t begin = static_cast<size_t>(blockIdx.x) * channels;
  const Dtype dot = caffe_metric::block_dot(channels, dy + begin, y + begin);
  const Dtype factor =
      caffe_metric::norm_gradient_factor(norms[blockIdx.x], eps);
  for (int k = threadIdx.x; k < channels; k += kBlockThreads) {
    dx[begin + k] =
        caffe_metric::norm_gradient(dy[begin + k], dot, y[begin + k], factor);
  }
}

// Vectors across further axes: a thread each, so that neighbouring threads
// read neighbouring elements.

template <typename Dtype>
__global__ void NormPositions(const int vectors, const int channels,
                              const int inner_num, const Dtype eps,
                              const Dtype* x, Dtype* y, Dtype* norms) {
  CUDA_KERNEL_LOOP(v, vectors) {
    const size_t begin =
        static_cast<size_t>(v / inner_num) * channels * inner_num +
        v % inner_num;
    double square = 0;
    for (int c = 0; c < channels; ++c) {
      const double value = x[begin + static_cast<size_t>(c) * inner_num];
      square += value * value;
    }
    norms[v] = sqrt(square);
    const Dtype factor = caffe_metric::norm_factor(norms[v], eps);
    for (int c = 0; c < channels; ++c) {
      const size_t k = begin + static_cast<size_t>(c) * inner_num;
      y[k] = x[k] * factor;
    }
  }
}

template <typename Dtype>
__global__ void NormPositionsGradient(const int vectors, const int channels,
                                      const int inner_num, const Dtype eps,
                                      const Dtype* y, const Dtype* dy,
                                      const Dtype* norms, Dtype* dx) {
  CUDA_KERNEL_LOOP(v, vectors) {
    const size_t begin =
        static_cast<size_t>(v / inner_num) * channels * inner_num +
        v % inner_num;
    Dtype dot = 0;
    for (int c = 0; c < channels; ++c) {
      const size_t k = begin + static_cast<size_t>(c) * inner_num;
      dot += dy[k] * y[k];
    }
    const Dtype factor = caffe_metric::norm_gradient_factor(norms[v], eps);
    for (int c = 0; c < channels; ++c) {
      const size_t k = begin + static_cast<size_t>(c) * inner_num;
      dx[k] = caffe_metric::norm_gradient(dy[k], dot, y[k], factor);
    }
  }
}

template <typename Dtype>
void NormLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom,
                                   const vector<Blob<Dtype>*>& top) {
  const Dtype* x = bottom[0]->gpu_data();
  Dtype* y = top[0]->mutable_gpu_data();
  Dtype* norms = norms_.mutable_gpu_data();
  if (inner_num_ == 1) {
    NormRows<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<outer_num_, kBlockThreads>>>(channels_, eps_, x, y, norms);
  } else {
    const int vectors = outer_num_ * inner_num_;
    NormPositions<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<CAFFE_GET_BLOCKS(vectors), CAFFE_CUDA_NUM_THREADS>>>(
            vectors, channels_, inner_num_, eps_, x, y, norms);
  }
  CUDA_POST_KERNEL_CHECK;
}

template <typename Dtype>
void NormLayer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top,
                                    const vector<bool>& propagate_down,
                                    const vector<Blob<Dtype>*>& bottom) {
  if (!propagate_down[0]) {
    return;
  }
  const Dtype* y = top[0]->gpu_data();
  const Dtype* dy = top[0]->gpu_diff();
  const Dtype* norms = norms_.gpu_data();
  Dtype* dx = bottom[0]->mutable_gpu_diff();
  if (inner_num_ == 1) {
    NormRowsGradient<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<outer_num_, kBlockThreads>>>(channels_, eps_, y, dy, norms, dx);
  } else {
    const int vectors = outer_num_ * inner_num_;
    NormPositionsGradient<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<CAFFE_GET_BLOCKS(vectors), CAFFE_CUDA_NUM_THREADS>>>(
            vectors, channels_, inner_num_, eps_, y, dy, norms, dx);
  }
  CUDA_POST_KERNEL_CHECK;
}

INSTANTIATE_LAYER_GPU_FUNCS(NormLayer);

}  // namespace caffe
