#include <algorithm>
#include <vector>

#include "caffe/layers/triplet_loss_layer.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe_metric/block.cuh"
#include "caffe_metric/triplet_all.cuh"
#include "caffe_metric/triplet_listed.cuh"

namespace caffe {

using caffe_metric::kAnchorSums;
using caffe_metric::kBlockThreads;
using caffe_metric::kListedSums;
using caffe_metric::kListedTermSize;
using caffe_metric::ListedTerm;
using caffe_metric::PairSums;

// Where work is dealt out to blocks, their number does not depend on how much
// there is: the sums keep their order.
const int kMaxBlocks = 1024;
const int kPairSums = sizeof(PairSums) / sizeof(double);

template <typename Dtype>
void TripletLossLayer<Dtype>::AddListedGpu(const vector<Blob<Dtype>*>& bottom) {
  const bool apart = layout_ >= ROWS;
  const int group_size = apart ? 0 : group_size_;
  const int count = apart ? num_ : num_ / group_size_ * (group_size_ - 2);
  const int blocks = std::min(num_, kMaxBlocks);
  terms_.Reshape(count, kListedTermSize, 1, 1);
  block_sums_.Reshape(blocks, kListedSums, 1, 1);
  caffe_metric::add_listed_terms<
      Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
      <<<blocks, kBlockThreads>>>(
          options_, group_size, count, dim_, bottom[0]->gpu_data(),
          bottom[apart ? 1 : 0]->gpu_data(), bottom[apart ? 2 : 0]->gpu_data(),
          layout_ == WEIGHTED_ROWS ? bottom[3]->gpu_data() : NULL,
          reinterpret_cast<ListedTerm<Dtype>*>(terms_.mutable_gpu_data()),
          block_sums_.mutable_gpu_data());
  CUDA_POST_KERNEL_CHECK;
  report_.AddColumns(blocks, kListedSums, block_sums_.gpu_data(), 0);
}

template <typename Dtype>
void TripletLossLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom,
                                          const vector<Blob<Dtype>*>& top) {
  caffe_metric::TripletStats stats;
  PairSums pairs = {0, 0, 0, 0};
  report_.Start(std::max(kListedSums, kAnchorSums + kPairSums));
  if (layout_ == MINED) {
    mined_->set_key(MiningKey());
    const Dtype* labels = bottom[1]->gpu_data();
    BatchRows<Dtype> rows = MinedRows(labels);
    rows.check = report_.Check(0, num_, labels, 0, caffe_metric::kAnyClass);
    sweep_.Run_gpu(rows, *bottom[0], num_, this->phase_ == TRAIN, mined_.get());
    report_.AddColumns(num_, kAnchorSums, mined_->sums()->gpu_data(), 0);
    report_.AddColumns(num_, kPairSums, mined_->pairs()->gpu_data(),
                       kAnchorSums);
    // The one copy to the host.
    report_.Read();
    if (report_.bad_input()) {
      this->CheckFinite(*bottom[0], "features");
      this->CheckLabels(*bottom[1]);
    }
    stats.loss = report_.sum(0);
    stats.selected = report_.sum(1);
    stats.active = report_.sum(2);
    pairs.same = report_.sum(kAnchorSums);
    pairs.others = report_.sum(kAnchorSums + 1);
    pairs.of_same = report_.sum(kAnchorSums + 2);
    pairs.of_others = report_.sum(kAnchorSums + 3);
    if (!pairs.is_finite()) {
      CheckDistances(bottom);
    }
  } else {
    if (layout_ == WEIGHTED_ROWS) {
      report_.CheckInput(num_, 1, bottom[3]->gpu_data(), NULL, 0);
    }
    AddListedGpu(bottom);
    report_.Read();
    if (report_.bad_input()) {
      this->CheckFinite(*bottom[3], "weights");
    }
    stats.loss = report_.sum(0);
    stats.selected = terms_.shape(0);
    stats.active = report_.sum(1);
    stats.d_ap = report_.sum(2);
    stats.d_an = report_.sum(3);
    if (report_.sum(4) != 0) {
      CheckDistances(bottom);
    }
  }
  Report(stats, pairs, top);
}

template <typename Dtype>
void TripletLossLayer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top,
                                           const vector<bool>& propagate_down,
                                           const vector<Blob<Dtype>*>& bottom) {
  for (size_t i = feature_bottoms_; i < bottom.size(); ++i) {
    if (propagate_down[i]) {
      caffe_gpu_set(bottom[i]->count(), Dtype(0),
                    bottom[i]->mutable_gpu_diff());
    }
  }
  const Dtype* loss_diff = top[0]->gpu_diff();
  if (layout_ == MINED) {
    if (propagate_down[0]) {
      if (!sweep_.has_gradient()) {
        sweep_.Run_gpu(MinedRows(bottom[1]->gpu_data()), *bottom[0], num_, true,
                       mined_.get());
      }
      sweep_.WriteGradient_gpu(0, num_, loss_diff, 1 / normalizer_, false,
                               bottom[0]->mutable_gpu_diff());
    }
    return;
  }
  const bool apart = layout_ >= ROWS;
  const Dtype* x[3];
  Dtype* dx[3];
  bool any = false;
  for (int role = 0; role < 3; ++role) {
    const int i = apart ? role : 0;
    x[role] = bottom[i]->gpu_data();
    dx[role] = propagate_down[i] ? bottom[i]->mutable_gpu_diff() : NULL;
    any = any || propagate_down[i];
  }
  if (any) {
    caffe_metric::listed_gradient<
        Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<apart ? num_ : num_ / group_size_, kBlockThreads>>>(
            options_.metric, apart ? 0 : group_size_,
            apart ? 1 : group_size_ - 2, dim_,
            reinterpret_cast<const ListedTerm<Dtype>*>(terms_.gpu_data()), x[0],
            x[1], x[2], loss_diff, normalizer_, dx[0], dx[1], dx[2]);
    CUDA_POST_KERNEL_CHECK;
  }
}

INSTANTIATE_LAYER_GPU_FUNCS(TripletLossLayer);

}  // namespace caffe
