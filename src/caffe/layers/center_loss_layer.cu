#include <vector>

#include "caffe/layers/center_loss_layer.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe_metric/center.cuh"

namespace caffe {

using caffe_metric::kBlockThreads;

template <typename Dtype>
void CenterLossLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom,
                                         const vector<Blob<Dtype>*>& top) {
  const Dtype* x = bottom[0]->gpu_data();
  const Dtype* labels = bottom[1]->gpu_data();
  squares_.Reshape(vector<int>(1, num_));
  report_.Start(1);
  caffe_metric::center_row_square<Dtype>
      // NOLINT_NEXT_LINE(whitespace/operators)
      <<<num_, kBlockThreads>>>(dim_, classes_, x, labels,
                                this->blobs_[0]->gpu_data(),
                                squares_.mutable_gpu_data(),
                                report_.Check(0, num_, labels, 0, classes_));
  CUDA_POST_KERNEL_CHECK;
  report_.AddColumns(num_, 1, squares_.gpu_data(), 0);
  // The one copy to the host.
  report_.Read();
  if (report_.bad_input()) {
    CheckInput(bottom);
  }
  Report(report_.sum(0), bottom, top);
}

template <typename Dtype>
void CenterLossLayer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top,
                                          const vector<bool>& propagate_down,
                                          const vector<Blob<Dtype>*>& bottom) {
  if (propagate_down[1]) {
    caffe_gpu_set(bottom[1]->count(), Dtype(0), bottom[1]->mutable_gpu_diff());
  }
  const bool to_centers = this->param_propagate_down_[0];
  if (!propagate_down[0] && !to_centers) {
    return;
  }
  caffe_metric::center_gradient<
      Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
      <<<num_, kBlockThreads>>>(
          update_, num_, dim_, classes_, bottom[0]->gpu_data(),
          bottom[1]->gpu_data(), this->blobs_[0]->gpu_data(),
          top[0]->gpu_diff(),
          propagate_down[0] ? bottom[0]->mutable_gpu_diff() : NULL,
          to_centers ? this->blobs_[0]->mutable_gpu_diff() : NULL);
  CUDA_POST_KERNEL_CHECK;
}

INSTANTIATE_LAYER_GPU_FUNCS(CenterLossLayer);

}  // namespace caffe
