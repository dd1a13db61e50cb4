#include <algorithm>
#include <vector>

#include "caffe/layers/triplet_loss_layer.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe/util/parallel_rows.hpp"
#include "caffe_metric/triplet_anchor.hpp"

namespace caffe {

using caffe_metric::kListedTermSize;
using caffe_metric::ListedTerm;
using caffe_metric::PairSums;
using caffe_metric::TripletStats;

// Anchors that a thread takes at once.
const int kGrain = 16;

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
void TripletLossLayer<Dtype>::AddMined(const vector<Blob<Dtype>*>& bottom,
                                       bool with_gradient, TripletStats* stats,
                                       PairSums* pairs) {
  const Dtype* labels = bottom[1]->cpu_data();
  // swap meets rows of other anchors: it needs all of them at once.
  distances_.Reshape(num_, dim_, true, options_.swap);
  distances_.Prepare_cpu(bottom[0]->cpu_data());
  if (with_gradient) {
    distances_.StartGradient_cpu();
  }
  anchor_stats_.assign(num_, TripletStats());
  anchor_pairs_.resize(num_);
  TripletStats* anchor_stats = anchor_stats_.data();
  PairSums* anchor_pairs = anchor_pairs_.data();
  for (int begin = 0; begin < num_; begin += distances_.strip()) {
    const int end = std::min(begin + distances_.strip(), num_);
    const Dtype* d = distances_.Strip_cpu(begin, end);
    Dtype* slopes = distances_.slopes_cpu();
    caffe_set((end - begin) * num_, Dtype(0), slopes);
    const caffe_metric::SwapMatrices<Dtype> matrices = {d, slopes, num_};
    // With swap an anchor writes derivatives of other rows, too.
    const int grain = options_.swap ? num_ : kGrain;
    ParallelRows(end - begin, grain, [=, &matrices](int from, int to) {
      caffe_metric::AnchorWork work;
      for (int row = from; row < to; ++row) {
        const int i = begin + row;
        const size_t at = static_cast<size_t>(row) * num_;
        anchor_pairs[i] =
            caffe_metric::pair_sums(i, num_, d + at, labels[i], labels);
        if (anchor_pairs[i].is_finite()) {
          caffe_metric::add_anchor(options_, mining_, key_, i, num_, d + at,
                                   labels, options_.swap ? &matrices : NULL,
                                   slopes + at, &work, &anchor_stats[i]);
        }
      }
    });
    if (with_gradient) {
      distances_.AddGradient_cpu(begin, end);
    }
  }
  for (int i = 0; i < num_; ++i) {
    stats->add(anchor_stats[i]);
    pairs->add(anchor_pairs[i]);
  }
  if (!pairs->is_finite()) {
    CheckDistances(bottom);
  }
  if (with_gradient) {
    distances_.FinishGradient_cpu();
  }
  has_gradient_ = with_gradient;
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
    key_ = MiningKey();
    AddMined(bottom, this->phase_ == TRAIN, &stats, &pairs);
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
    if (!has_gradient_) {
      TripletStats stats;
      PairSums pairs = {0, 0, 0, 0};
      AddMined(bottom, true, &stats, &pairs);
    }
    caffe_cpu_scale(bottom[0]->count(), scale, distances_.gradient().cpu_data(),
                    bottom[0]->mutable_cpu_diff());
  }
}

#ifdef CPU_ONLY
STUB_GPU(TripletLossLayer);
#endif

INSTANTIATE_CLASS(TripletLossLayer);
REGISTER_LAYER_CLASS(TripletLoss);

}  // namespace caffe
