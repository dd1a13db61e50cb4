#include <algorithm>
#include <vector>

#include "caffe/layers/rank_hard_loss_layer.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe/util/strided_gemm_gpu.hpp"
#include "caffe_metric/rank_hard.cuh"
#include "caffe_metric/strips.hpp"

namespace caffe {

using caffe_metric::kBlockThreads;
using caffe_metric::kGroupSums;
using caffe_metric::RankDraw;

template <typename Dtype>
void RankHardLossLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom,
                                           const vector<Blob<Dtype>*>& top) {
  const Dtype* x = bottom[0]->gpu_data();
  const Dtype* labels = bottom[1]->gpu_data();
  const Dtype margin = param_.margin();
  const int pair_size = param_.pair_size();
  const uint64_t key = DrawingKey();
  const RankDraw number = caffe_metric::rank_draw(
      param_.neg_num(), param_.hard_ratio(), param_.rand_ratio());
  max_taken_ = std::min(
      num_, std::max(number.neg_num, number.hard_number + number.rand_number));
  const int strip = caffe_metric::strip_rows(group_num_, num_);
  products_.Reshape(strip, num_, 1, 1);
  taken_rows_.Reshape(group_num_, max_taken_, 1, 1);
  hinges_.Reshape(group_num_, max_taken_, 1, 1);
  group_sums_.Reshape(group_num_, kGroupSums, 1, 1);
  report_.Start(kGroupSums);
  report_.CheckInput(num_, dim_, x, labels, pair_size);
  for (int begin = 0; begin < group_num_; begin += strip) {
    const int groups = std::min(strip, group_num_ - begin);
    // The anchors' rows lie pair_size rows apart.
    strided_gpu_gemm(CblasNoTrans, CblasTrans, groups, num_, dim_, Dtype(1),
                     x + static_cast<size_t>(begin) * pair_size * dim_,
                     pair_size * dim_, x, dim_, Dtype(0),
                     products_.mutable_gpu_data(), num_);
    caffe_metric::rank_groups<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<groups, kBlockThreads>>>(
            number, margin, key, pair_size, begin, num_, dim_, max_taken_,
            products_.gpu_data(), x, labels, taken_rows_.mutable_gpu_data(),
            hinges_.mutable_gpu_data(), group_sums_.mutable_gpu_data());
    CUDA_POST_KERNEL_CHECK;
  }
  report_.AddColumns(group_num_, kGroupSums, group_sums_.gpu_data(), 0);
  // The one copy to the host.
  report_.Read();
  if (report_.bad_input()) {
    CheckInput(bottom);
  }
  if (report_.sum(3) != 0) {
    FailTooLarge();
  }
  Report(report_.sum(0), report_.sum(1), report_.sum(2), top);
}

template <typename Dtype>
void RankHardLossLayer<Dtype>::Backward_gpu(
    const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
    const vector<Blob<Dtype>*>& bottom) {
  if (propagate_down[1]) {
    caffe_gpu_set(bottom[1]->count(), Dtype(0), bottom[1]->mutable_gpu_diff());
  }
  if (!propagate_down[0]) {
    return;
  }
  caffe_metric::rank_gradient<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
      <<<num_, kBlockThreads>>>(
          group_num_, param_.pair_size(), dim_, max_taken_,
          taken_rows_.gpu_data(), hinges_.gpu_data(), bottom[0]->gpu_data(),
          top[0]->gpu_diff(), normalizer_, bottom[0]->mutable_gpu_diff());
  CUDA_POST_KERNEL_CHECK;
}

INSTANTIATE_LAYER_GPU_FUNCS(RankHardLossLayer);

}  // namespace caffe
