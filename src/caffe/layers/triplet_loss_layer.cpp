#include <algorithm>
#include <vector>

#include "caffe/layers/triplet_loss_layer.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe_metric/triplet_anchor.hpp"

namespace caffe {

using caffe_metric::kListedTermSize;
using caffe_metric::ListedTerm;
using caffe_metric::PairSums;
using caffe_metric::TripletStats;

template <typename Dtype>
typename TripletLossLayer<Dtype>::Listed TripletLossLayer<Dtype>::ListedRows(
    const vector<Blob<Dtype>*>& bottom) const {
  const bool apart = layout_ >= ROWS;
  Listed rows;
  for (int role = 0; role < 3; ++role) {
    rows.x[role] = bottom[apart ? role : 0]->cpu_data();
    rows.dx[role] = NULL;
    if (!apart) {
      rows.x[role] += role * dim_;
    }
  }
  rows.group_rows = apart ? 1 : group_size_;
  rows.groups = num_ / rows.group_rows;
  rows.negatives = apart ? 1 : group_size_ - 2;
  return rows;
}

template <typename Dtype>
void TripletLossLayer<Dtype>::AddListed(const vector<Blob<Dtype>*>& bottom,
                                        TripletStats* stats) {
  const Listed rows = ListedRows(bottom);
  const Dtype* weights =
      layout_ == WEIGHTED_ROWS ? bottom[3]->cpu_data() : NULL;
  terms_.Reshape(rows.groups * rows.negatives, kListedTermSize, 1, 1);
  ListedTerm<Dtype>* term =
      reinterpret_cast<ListedTerm<Dtype>*>(terms_.mutable_cpu_data());
  caffe_metric::DistanceSums<Dtype> ap;
  for (int g = 0; g < rows.groups; ++g) {
    const size_t at = static_cast<size_t>(g) * rows.group_rows * dim_;
    const Dtype weight = weights ? weights[g] : Dtype(1);
    for (int k = 0; k < rows.negatives; ++k) {
      *term++ = caffe_metric::add_listed(
          options_, dim_, rows.x[0] + at, rows.x[1] + at,
          rows.x[2] + at + k * dim_, weight, k == 0, &ap, stats);
    }
  }
  if (!caffe_metric::is_finite(stats->d_ap + stats->d_an)) {
    CheckDistances(bottom);
  }
}

template <typename Dtype>
void TripletLossLayer<Dtype>::CheckDistances(
    const vector<Blob<Dtype>*>& bottom) const {
  for (int i = 0; i < feature_bottoms_; ++i) {
    this->CheckFinite(*bottom[i], "features");
  }
  LOG(FATAL) << this->Title() << ": the features are too large: a distance of "
             << "two rows is beyond the largest number";
}

template <typename Dtype>
uint64_t TripletLossLayer<Dtype>::MiningKey() const {
  const bool draws =
      mining_ == caffe_metric::SEMIHARD || mining_ == caffe_metric::VIOLATING;
  return draws && this->phase_ == TRAIN ? this->DrawKey() : 0;
}

template <typename Dtype>
BatchRows<Dtype> TripletLossLayer<Dtype>::MinedRows(const Dtype* labels) const {
  const BatchRows<Dtype> rows = {num_, num_, true, labels, labels};
  return rows;
}

template <typename Dtype>
void TripletLossLayer<Dtype>::Report(const TripletStats& stats,
                                     const PairSums& pairs,
                                     const vector<Blob<Dtype>*>& top) {
  const bool mined = layout_ == MINED;
  const int groups = layout_ == GROUPS ? num_ / group_size_ : num_;
  const Dtype own = mined ? std::max(stats.active, 1.) : 2. * groups;
  normalizer_ = this->Normalizer(own, stats.selected, stats.active, groups);
  top[0]->mutable_cpu_data()[0] = stats.loss / normalizer_;
  const double selected = std::max(stats.selected, 1.);
  const double candidates = mined
                                ? caffe_metric::mined_candidates(
                                      mining_, num_, pairs.same, stats.selected)
                                : selected;
  const double reports[] = {
      stats.active / std::max(candidates, 1.),
      mined ? pairs.mean_same() : stats.d_ap / selected,
      mined ? pairs.mean_others() : stats.d_an / selected};
  for (size_t i = 1; i < top.size(); ++i) {
    top[i]->mutable_cpu_data()[0] = reports[i - 1];
  }
}

template <typename Dtype>
void TripletLossLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom,
                                          const vector<Blob<Dtype>*>& top) {
  TripletStats stats;
  PairSums pairs = {0, 0, 0, 0};
  if (layout_ == MINED) {
    this->CheckFinite(*bottom[0], "features");
    this->CheckLabels(*bottom[1]);
    mined_->set_key(MiningKey());
    sweep_.Run_cpu(MinedRows(bottom[1]->cpu_data()), *bottom[0], num_,
                   this->phase_ == TRAIN, mined_.get());
    const double* sums = mined_->sums()->cpu_data();
    const PairSums* row_pairs =
        reinterpret_cast<const PairSums*>(mined_->pairs()->cpu_data());
    for (int i = 0; i < num_; ++i, sums += 3) {
      stats.loss += sums[0];
      stats.selected += sums[1];
      stats.active += sums[2];
      pairs.add(row_pairs[i]);
    }
    if (!pairs.is_finite()) {
      CheckDistances(bottom);
    }
  } else {
    if (layout_ == WEIGHTED_ROWS) {
      this->CheckFinite(*bottom[3], "weights");
    }
    AddListed(bottom, &stats);
  }
  Report(stats, pairs, top);
}

template <typename Dtype>
void TripletLossLayer<Dtype>::AddListedGradient(
    Dtype scale, const vector<bool>& propagate_down,
    const vector<Blob<Dtype>*>& bottom) {
  Listed rows = ListedRows(bottom);
  const bool apart = layout_ >= ROWS;
  for (int role = 0; role < 3; ++role) {
    const int i = apart ? role : 0;
    if (propagate_down[i]) {
      rows.dx[role] = bottom[i]->mutable_cpu_diff() + (apart ? 0 : role * dim_);
    }
  }
  const ListedTerm<Dtype>* term =
      reinterpret_cast<const ListedTerm<Dtype>*>(terms_.cpu_data());
  // Where the gradient of a bottom goes that does not propagate.
  vector<Dtype> nowhere(dim_);
  for (int g = 0; g < rows.groups; ++g) {
    const size_t at = static_cast<size_t>(g) * rows.group_rows * dim_;
    for (int k = 0; k < rows.negatives; ++k) {
      const size_t offset[3] = {at, at, at + k * dim_};
      Dtype* dx[3];
      for (int role = 0; role < 3; ++role) {
        dx[role] =
            rows.dx[role] ? rows.dx[role] + offset[role] : nowhere.data();
      }
      caffe_metric::add_listed_gradient(
          options_.metric, dim_, *term++, scale, rows.x[0] + offset[0],
          rows.x[1] + offset[1], rows.x[2] + offset[2], dx[0], dx[1], dx[2]);
    }
  }
}

template <typename Dtype>
void TripletLossLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top,
                                           const vector<bool>& propagate_down,
                                           const vector<Blob<Dtype>*>& bottom) {
  for (size_t i = 0; i < bottom.size(); ++i) {
    if (propagate_down[i]) {
      this->ZeroDiff(bottom[i]);
    }
  }
  const Dtype scale = top[0]->cpu_diff()[0] / normalizer_;
  if (layout_ != MINED) {
    AddListedGradient(scale, propagate_down, bottom);
  } else if (propagate_down[0]) {
    if (!sweep_.has_gradient()) {
      sweep_.Run_cpu(MinedRows(bottom[1]->cpu_data()), *bottom[0], num_, true,
                     mined_.get());
    }
    caffe_cpu_scale(bottom[0]->count(), scale, sweep_.gradient().cpu_data(),
                    bottom[0]->mutable_cpu_diff());
  }
}

#ifdef CPU_ONLY
STUB_GPU(TripletLossLayer)
#endif

INSTANTIATE_CLASS(TripletLossLayer);
REGISTER_LAYER_CLASS(TripletLoss);

}  // namespace caffe
