#include <vector>

#include "caffe/layers/norm_layer.hpp"
#include "caffe_metric/norm.cuh"

namespace caffe {

using caffe_metric::grid_blocks;
using caffe_metric::kBlockThreads;
using caffe_metric::kGridThreads;

template <typename Dtype>
void NormLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom,
                                   const vector<Blob<Dtype>*>& top) {
  const Dtype* x = bottom[0]->gpu_data();
  Dtype* y = top[0]->mutable_gpu_data();
  Dtype* norms = norms_.mutable_gpu_data();
  if (inner_num_ == 1) {
    caffe_metric::norm_rows<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<outer_num_, kBlockThreads>>>(channels_, eps_, x, y, norms);
  } else {
    const size_t vectors = norms_.count();
    caffe_metric::norm_positions<
        Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<grid_blocks(vectors), kGridThreads>>>(vectors, channels_, inner_num_,
                                                 eps_, x, y, norms);
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
    caffe_metric::norm_rows_gradient<
        Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<outer_num_, kBlockThreads>>>(channels_, eps_, y, dy, norms, dx);
  } else {
    const size_t vectors = norms_.count();
    caffe_metric::norm_positions_gradient<
        Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<grid_blocks(vectors), kGridThreads>>>(vectors, channels_, inner_num_,
                                                 eps_, y, dy, norms, dx);
  }
  CUDA_POST_KERNEL_CHECK;
}

INSTANTIATE_LAYER_GPU_FUNCS(NormLayer);

}  // namespace caffe
