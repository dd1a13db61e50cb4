#include <vector>

#include "caffe/layers/batch_loss_layer.hpp"
#include "caffe/util/math_functions.hpp"

namespace caffe {

template <typename Dtype>
void BatchLossLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom,
                                        const vector<Blob<Dtype>*>& top) {
  const int pair_sums = RuleRows<Dtype>::kPairSums;
  report_.Start(2 + pair_sums);
  const Blob<Dtype>& rows = MakeRows(bottom);
  const int classes = proxies() > 0 ? proxies() : caffe_metric::kAnyClass;
  batch_.check =
      report_.Check(proxies(), num_, bottom[1]->gpu_data(), 0, classes);
  sweep_.Run_gpu(batch_, rows, num_, this->phase_ == TRAIN, rule_.get());
  report_.AddColumns(anchors_, 2, rule_->losses()->gpu_data(), 0);
  report_.AddColumns(anchors_, pair_sums, rule_->pairs()->gpu_data(), 2);
  // The one copy to the host.
  report_.Read();
  if (report_.bad_input()) {
    CheckInput(bottom);
  }
  const caffe_metric::PairSums pairs = {report_.sum(2), report_.sum(3),
                                        report_.sum(4), report_.sum(5)};
  if (!pairs.is_finite()) {
    FailTooLarge(bottom);
  }
  Report(report_.sum(0), report_.sum(1), pairs, top);
  Remember(bottom);
}

template <typename Dtype>
void BatchLossLayer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top,
                                         const vector<bool>& propagate_down,
                                         const vector<Blob<Dtype>*>& bottom) {
  if (propagate_down[1]) {
    caffe_gpu_set(bottom[1]->count(), Dtype(0), bottom[1]->mutable_gpu_diff());
  }
  const bool learns = proxies() > 0 && this->param_propagate_down_[0];
  if (!propagate_down[0] && !learns) {
    return;
  }
  if (!sweep_.has_gradient()) {
    const Blob<Dtype>& rows = MakeRows(bottom);
    batch_.check.bad = NULL;
    sweep_.Run_gpu(batch_, rows, num_, true, rule_.get());
  }
  const Dtype* loss_diff = top[0]->gpu_diff();
  const Dtype own = empty_ ? Dtype(0) : 1 / normalizer_;
  if (learns) {
    sweep_.WriteGradient_gpu(0, proxies(), loss_diff, own, true,
                             this->blobs_[0]->mutable_gpu_diff());
  }
  if (propagate_down[0]) {
    sweep_.WriteGradient_gpu(proxies(), num_, loss_diff, own, false,
                             bottom[0]->mutable_gpu_diff());
  }
}

INSTANTIATE_LAYER_GPU_FUNCS(BatchLossLayer);

}  // namespace caffe
