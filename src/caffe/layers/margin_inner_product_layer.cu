#include <algorithm>
#include <vector>

#include "caffe/layers/margin_inner_product_layer.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe_metric/margin.cuh"

namespace caffe {

using caffe_metric::grid_blocks;
using caffe_metric::kBlockThreads;
using caffe_metric::kGridThreads;

template <typename Dtype>
void MarginInnerProductLayer<Dtype>::Forward_gpu(
    const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const int M = this->M_, C = this->C_, K = this->K_;
  this->EndLabelCheck();
  this->StartLabelCheck(*bottom[1], &this->targets_, NULL);
  this->UpdateLambda();
  this->BeginGpu(*bottom[0]);
  const Dtype* features = this->FeaturesGpu(*bottom[0]);
  Dtype* logits = top[0]->mutable_gpu_data();
  if (this->in_place()) {
    this->ScaleWeightsGpu(0, C, NULL);
    caffe_gpu_gemm<Dtype>(CblasNoTrans, CblasTrans, M, C, K,
                          this->target_.scale, features,
                          this->blobs_[0]->gpu_data(), Dtype(0), logits);
  }
  for (int begin = 0; !this->in_place() && begin < C;
       begin += this->GpuWidth()) {
    const int end = std::min(C, begin + this->GpuWidth());
    this->StripLogitsGpu(features, this->StripWeightsGpu(begin, end), begin,
                         end, C, logits + begin);
  }
  const int pieces = caffe_metric::row_pieces(C);
  const Dtype* maxima = NULL;
  if (this->target_.margin && this->param_.semihard()) {
    const dim3 grid(M, pieces);
    maxima_.Reshape(pieces, M, 2, 1);
    caffe_metric::piece_maxima<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<grid, kBlockThreads>>>(C, this->targets_.gpu_data(), logits,
                                  maxima_.mutable_gpu_data());
    maxima = maxima_.gpu_data();
  }
  caffe_metric::set_target_logits<Dtype>
      // NOLINT_NEXT_LINE(whitespace/operators)
      <<<M, kBlockThreads>>>(this->target_, pieces, maxima, C,
                             this->targets_.gpu_data(), this->norms_.gpu_data(),
                             this->target_norms_.gpu_data(),
                             this->cosines_.mutable_gpu_data(),
                             this->keep_.mutable_gpu_data(), logits);
  CUDA_POST_KERNEL_CHECK;
  if (top.size() > 1) {
    top[1]->mutable_cpu_data()[0] = this->target_.rule.lambda;
  }
}

template <typename Dtype>
void MarginInnerProductLayer<Dtype>::Backward_gpu(
    const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
    const vector<Blob<Dtype>*>& bottom) {
  const int M = this->M_, C = this->C_;
  const bool reference = this->target_.reference;
  const bool to_weights =
      this->param_propagate_down_[0] && !this->param_.triplet();
  const Dtype* features = this->FeaturesGpu(*bottom[0]);
  const int* targets = this->targets_.gpu_data();
  Dtype* top_diff = top[0]->mutable_gpu_diff();
  this->EndLabelCheck();
  this->awaits_backward_ = false;
  if (to_weights && reference) {
    this->AddWeightGradientGpu(features, top_diff);
  }
  // The targets' entries are times the slope for both products, and then
  // themselves again: no copy of the M x C array.
  this->target_diffs_gpu_.Reshape(vector<int>(1, M));
  caffe_metric::scale_target_diffs<Dtype>
      // NOLINT_NEXT_LINE(whitespace/operators)
      <<<grid_blocks(M), kGridThreads>>>(
          this->target_, M, C, targets, this->norms_.gpu_data(),
          this->cosines_.gpu_data(), top_diff,
          this->target_diffs_gpu_.mutable_gpu_data());
  CUDA_POST_KERNEL_CHECK;
  if (to_weights && !reference) {
    this->AddWeightGradientGpu(features, top_diff);
  }
  if (propagate_down[0] && this->in_place()) {
    this->StripFeatureGradientGpu(this->blobs_[0]->gpu_data(), 0, C, C,
                                  top_diff, bottom[0]->mutable_gpu_diff());
  } else if (propagate_down[0]) {
    Dtype* dx = bottom[0]->mutable_gpu_diff();
    for (int begin = 0; begin < C; begin += this->GpuWidth()) {
      const int end = std::min(C, begin + this->GpuWidth());
      this->StripFeatureGradientGpu(this->StripWeightsGpu(begin, end), begin,
                                    end, C, top_diff + begin, dx);
    }
  }
  caffe_metric::restore_target_diffs<Dtype>
      // NOLINT_NEXT_LINE(whitespace/operators)
      <<<grid_blocks(M), kGridThreads>>>(
          M, C, targets, this->target_diffs_gpu_.gpu_data(), top_diff);
  CUDA_POST_KERNEL_CHECK;
  this->EndGradientGpu(propagate_down, bottom);
}

INSTANTIATE_LAYER_GPU_FUNCS(MarginInnerProductLayer);

}  // namespace caffe
