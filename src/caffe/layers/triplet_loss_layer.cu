#include <algorithm>
#include <vector>

#include "caffe/layers/triplet_loss_layer.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe_metric/block.cuh"
#include "caffe_metric/pairs.cuh"
#include "caffe_metric/scale_by_loss.cuh"
#include "caffe_metric/triplet_all.cuh"
#include "caffe_metric/triplet_listed.cuh"
#include "caffe_metric/triplet_mining.cuh"

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
// Blocks that have scratch memory for an anchor's thresholds.
const int kHingeBlocks = 256;
const int kPairSums = sizeof(PairSums) / sizeof(double);

template <typename Dtype>
void TripletLossLayer<Dtype>::AddListedGpu(const vector<Blob<Dtype>*>& bottom) {
  const bool apart = layout_ >= ROWS;
  const int group_size = apart ? 0 : group_size_;
  const int count = apart ? num_ : num_ / group_size_ * (group_size_ - 2);
  const int blocks = std::min(num_, kMaxBlocks);
  terms_.Reshape(count, kListedTermSize, 1, 1);
  row_sums_.Reshape(blocks, kListedSums, 1, 1);
  caffe_metric::add_listed_terms<
      Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
      <<<blocks, kBlockThreads>>>(
          options_, group_size, count, dim_, bottom[0]->gpu_data(),
          bottom[apart ? 1 : 0]->gpu_data(), bottom[apart ? 2 : 0]->gpu_data(),
          layout_ == WEIGHTED_ROWS ? bottom[3]->gpu_data() : NULL,
          reinterpret_cast<ListedTerm<Dtype>*>(terms_.mutable_gpu_data()),
          row_sums_.mutable_gpu_data());
  CUDA_POST_KERNEL_CHECK;
  report_.AddColumns(blocks, kListedSums, row_sums_.gpu_data(), 0);
}

template <typename Dtype>
void TripletLossLayer<Dtype>::MineStripGpu(int begin, int end, const Dtype* d,
                                           const Dtype* labels) {
  const int rows = end - begin;
  const bool swap = options_.swap;
  const bool use_pair = options_.use_pair;
  PairSums* pairs = reinterpret_cast<PairSums*>(row_pairs_.mutable_gpu_data());
  Dtype* slopes = distances_.slopes_gpu();
  double* sums = row_sums_.mutable_gpu_data();
  caffe_metric::pair_sums_row<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
      <<<rows, kBlockThreads>>>(begin, num_, d, labels, pairs);
  if (mining_ != caffe_metric::ALL) {
    caffe_metric::mined_row<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<rows, kBlockThreads>>>(options_.rule, mining_, swap, use_pair, key_,
                                  begin, num_, d, labels, slopes, sums);
  } else if (options_.rule.type == caffe_metric::HINGE && !swap) {
    const int blocks = std::min(rows, kHingeBlocks);
    int room = 1;
    while (room < num_) {
      room *= 2;
    }
    thresholds_.Reshape(blocks, room, 1, 1);
    threshold_sums_.Reshape(blocks, num_, 1, 1);
    threshold_counts_.Reshape(blocks, num_ + 1, 1, 1);
    caffe_metric::hinge_rows<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<blocks, kBlockThreads>>>(
            options_.rule.margin, use_pair, begin, rows, num_, room, d, labels,
            pairs, thresholds_.mutable_gpu_data(),
            threshold_sums_.mutable_gpu_data(),
            threshold_counts_.mutable_gpu_data(), slopes, sums);
  } else {
    caffe_metric::loss_row<Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<rows, kBlockThreads>>>(options_.rule, swap, use_pair, begin, num_, d,
                                  labels, pairs, slopes, sums);
  }
  CUDA_POST_KERNEL_CHECK;
}

template <typename Dtype>
void TripletLossLayer<Dtype>::AddMinedGpu(const vector<Blob<Dtype>*>& bottom,
                                          bool with_gradient) {
  // swap meets rows of other anchors: it needs all of them at once.
  distances_.Reshape(num_, dim_, true, options_.swap);
  row_pairs_.Reshape(num_, kPairSums, 1, 1);
  row_sums_.Reshape(num_, kAnchorSums, 1, 1);
  distances_.Prepare_gpu(bottom[0]->gpu_data());
  if (with_gradient) {
    distances_.StartGradient_gpu();
  }
  for (int begin = 0; begin < num_; begin += distances_.strip()) {
    const int end = std::min(begin + distances_.strip(), num_);
    MineStripGpu(begin, end, distances_.Strip_gpu(begin, end),
                 bottom[1]->gpu_data());
    if (with_gradient) {
      distances_.AddGradient_gpu(begin, end);
    }
  }
  if (with_gradient) {
    distances_.FinishGradient_gpu();
  }
  report_.AddColumns(num_, kAnchorSums, row_sums_.gpu_data(), 0);
  report_.AddColumns(num_, kPairSums, row_pairs_.gpu_data(), kAnchorSums);
  has_gradient_ = with_gradient;
}

template <typename Dtype>
void TripletLossLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom,
                                          const vector<Blob<Dtype>*>& top) {
  caffe_metric::TripletStats stats;
  PairSums pairs = {0, 0, 0, 0};
  report_.Start(std::max(kListedSums, kAnchorSums + kPairSums));
  if (layout_ == MINED) {
    key_ = MiningKey();
    report_.CheckInput(num_, dim_, bottom[0]->gpu_data(), bottom[1]->gpu_data(),
                       0);
    AddMinedGpu(bottom, this->phase_ == TRAIN);
    // The one copy to the host.
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
      if (!has_gradient_) {
        report_.Start(kAnchorSums + kPairSums);
        AddMinedGpu(bottom, true);
      }
      const int count = bottom[0]->count();
      caffe_metric::scale_by_loss<
          Dtype>  // NOLINT_NEXT_LINE(whitespace/operators)
          <<<CAFFE_GET_BLOCKS(count), CAFFE_CUDA_NUM_THREADS>>>(
              count, distances_.gradient().gpu_data(), loss_diff,
              1 / normalizer_, bottom[0]->mutable_gpu_diff());
      CUDA_POST_KERNEL_CHECK;
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
