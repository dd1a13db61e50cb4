#include <algorithm>
#include <vector>

#include "caffe/layers/triplet_loss_layer.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe_metric/gram.hpp"
#include "caffe_metric/strips.hpp"

namespace caffe {

using caffe_metric::Triplet;
using caffe_metric::TripletStats;
using caffe_metric::TripletTerm;

template <typename Dtype>
void TripletLossLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom,
                                         const vector<Blob<Dtype>*>& top) {
  MetricLossLayer<Dtype>::LayerSetUp(bottom, top);
  const TripletLossParameter& param = this->layer_param_.triplet_loss_param();
  layout_ = static_cast<Layout>(bottom.size());
  feature_bottoms_ = layout_ < ROWS ? 1 : 3;
  mining_ = static_cast<caffe_metric::Mining>(param.mining());
  metric_.distance = static_cast<caffe_metric::Distance>(param.distance());
  metric_.p = param.p();
  metric_.eps = param.eps();
  rule_.type = static_cast<caffe_metric::TripletLossType>(param.losstype());
  rule_.margin = param.margin();
  swap_ = param.swap();
  use_pair_ = param.use_pair();
  CHECK(param.num_negatives() >= 1 && param.num_negatives() < 1u << 30)
      << this->Title() << ": num_negatives is " << param.num_negatives()
      << ", must be >= 1 and < 2^30";
  group_size_ = 2 + param.num_negatives();
  CHECK(rule_.type != caffe_metric::RATIO || rule_.margin > 0)
      << this->Title() << ": margin is " << param.margin()
      << ", RATIO needs a margin > 0";
  CHECK(metric_.distance != caffe_metric::LP || metric_.p > 0)
      << this->Title() << ": p is " << param.p() << ", LP needs p > 0";
}

template <typename Dtype>
void TripletLossLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom,
                                      const vector<Blob<Dtype>*>& top) {
  MetricLossLayer<Dtype>::Reshape(bottom, top);
  num_ = bottom[0]->shape(0);
  dim_ = bottom[0]->count(1);
  for (int i = 1; i < feature_bottoms_; ++i) {
    CHECK(bottom[i]->shape() == bottom[0]->shape())
        << this->Title() << ": anchors, positives and negatives must have "
        << "the same shape, bottom " << i << " has "
        << bottom[i]->shape_string() << " and bottom 0 "
        << bottom[0]->shape_string();
  }
  if (layout_ == GROUPS) {
    CHECK_EQ(num_ % group_size_, 0)
        << this->Title() << ": the batch of " << num_
        << " rows is no multiple of the group size " << group_size_
        << " (2 + num_negatives)";
  }
  if (layout_ == MINED || layout_ == WEIGHTED_ROWS) {
    const int last = layout_ == MINED ? 1 : 3;
    CHECK_EQ(bottom[last]->count(), num_)
        << this->Title() << ": needs one "
        << (layout_ == MINED ? "label" : "weight") << " a row, has " << num_
        << " rows and bottom " << last << " of shape "
        << bottom[last]->shape_string();
  }
}

template <typename Dtype>
void TripletLossLayer<Dtype>::ListTriplets() {
  if (layout_ == GROUPS) {
    for (int anchor = 0; anchor < num_; anchor += group_size_) {
      for (int k = 2; k < group_size_; ++k) {
        const Triplet triplet = {anchor, anchor + 1, anchor + k};
        triplets_.push_back(triplet);
      }
    }
    return;
  }
  for (int i = 0; i < num_; ++i) {
    const Triplet triplet = {i, i, i};
    triplets_.push_back(triplet);
  }
}

template <typename Dtype>
void TripletLossLayer<Dtype>::PrepareRows(const Dtype* x, int strip) {
  distances_.Reshape(strip, num_, 1, 1);
  prepared_.Reshape(num_, dim_, 1, 1);
  row_norms_.Reshape(num_, 1, 1, 1);
  if (metric_.distance != caffe_metric::LP) {
    caffe_metric::prepare_rows(metric_.distance, num_, dim_, x,
                               prepared_.mutable_cpu_data(),
                               row_norms_.mutable_cpu_data());
  }
}

template <typename Dtype>
void TripletLossLayer<Dtype>::StripDistances(int begin, int end,
                                             const Dtype* x) {
  const bool by_gram = metric_.distance != caffe_metric::LP;
  const Dtype* u = by_gram ? prepared_.cpu_data() : x;
  Dtype* distances = distances_.mutable_cpu_data();
  if (by_gram) {
    caffe_cpu_gemm<Dtype>(CblasNoTrans, CblasTrans, end - begin, num_, dim_,
                          Dtype(1), u + begin * dim_, u, Dtype(0), distances);
  }
  for (int i = begin; i < end; ++i) {
    caffe_metric::gram_to_distances(metric_, i, num_, dim_, u,
                                    row_norms_.cpu_data(),
                                    distances + (i - begin) * num_);
  }
}

template <typename Dtype>
void TripletLossLayer<Dtype>::MineTriplets(const vector<Blob<Dtype>*>& bottom) {
  const Dtype* x = bottom[0]->cpu_data();
  const uint64_t key = mining_ == caffe_metric::HARDEST ? 0 : this->DrawKey();
  const int strip = caffe_metric::strip_rows(num_, num_);
  PrepareRows(x, strip);
  for (int begin = 0; begin < num_; begin += strip) {
    const int end = std::min(begin + strip, num_);
    StripDistances(begin, end, x);
    for (int i = begin; i < end; ++i) {
      caffe_metric::mine_anchor(mining_, rule_.margin, key, i, num_,
                                distances_.cpu_data() + (i - begin) * num_,
                                bottom[1]->cpu_data(), &triplets_);
    }
  }
}

template <typename Dtype>
void TripletLossLayer<Dtype>::AddListed(const vector<Blob<Dtype>*>& bottom,
                                        TripletStats* stats) {
  const bool apart = layout_ >= ROWS;
  const Dtype* anchors = bottom[0]->cpu_data();
  const Dtype* positives = bottom[apart ? 1 : 0]->cpu_data();
  const Dtype* negatives = bottom[apart ? 2 : 0]->cpu_data();
  const Dtype* weights =
      layout_ == WEIGHTED_ROWS ? bottom[3]->cpu_data() : NULL;
  Dtype d_ap = 0;
  for (size_t t = 0; t < triplets_.size(); ++t) {
    const Triplet& rows = triplets_[t];
    const Dtype* a = anchors + rows.anchor * dim_;
    const Dtype* p = positives + rows.positive * dim_;
    const Dtype* n = negatives + rows.negative * dim_;
    const Dtype weight = weights ? weights[t] : Dtype(1);
    // The negatives of a group share one pair.
    const bool new_pair = t == 0 || rows.anchor != triplets_[t - 1].anchor ||
                          rows.positive != triplets_[t - 1].positive;
    if (new_pair) {
      d_ap = caffe_metric::row_distance(metric_, dim_, a, p);
    }
    Dtype d_an = caffe_metric::row_distance(metric_, dim_, a, n);
    bool swapped = false;
    if (swap_) {
      const Dtype d_pn = caffe_metric::row_distance(metric_, dim_, p, n);
      swapped = caffe_metric::takes_swapped(d_an, d_pn);
      d_an = swapped ? d_pn : d_an;
    }
    if (!caffe_metric::is_finite(d_ap + d_an)) {
      for (int i = 0; i < feature_bottoms_; ++i) {
        this->CheckFinite(*bottom[i], "features");
      }
    }
    const TripletTerm<Dtype> loss =
        caffe_metric::triplet_term(rule_, d_ap, d_an);
    stats->add(loss.loss, weight, d_ap, d_an);
    Term term = {rows, weight * loss.slope_ap, weight * loss.slope_an, swapped};
    if (use_pair_ && new_pair) {
      stats->loss += weight * d_ap;
      term.slope_ap += weight;
    }
    terms_.push_back(term);
  }
}

template <typename Dtype>
void TripletLossLayer<Dtype>::AddAll(const vector<Blob<Dtype>*>& bottom,
                                     bool with_gradient, TripletStats* stats) {
  const Dtype* x = bottom[0]->cpu_data();
  const Dtype* labels = bottom[1]->cpu_data();
  // swap meets rows of other anchors: it needs all of them at once.
  const int strip = swap_ ? num_ : caffe_metric::strip_rows(num_, 2 * num_);
  PrepareRows(x, strip);
  slopes_.Reshape(strip, num_, 1, 1);
  gradient_.Reshape(num_, dim_, 1, 1);
  row_sums_.Reshape(num_, 1, 1, 1);
  caffe_set(gradient_.count(), Dtype(0), gradient_.mutable_cpu_data());
  caffe_set(num_, Dtype(0), row_sums_.mutable_cpu_data());
  vector<int> positives, negatives;
  for (int begin = 0; begin < num_; begin += strip) {
    const int end = std::min(begin + strip, num_);
    StripDistances(begin, end, x);
    Dtype* all_slopes = slopes_.mutable_cpu_data();
    caffe_set((end - begin) * num_, Dtype(0), all_slopes);
    const caffe_metric::SwapMatrices<Dtype> matrices = {distances_.cpu_data(),
                                                        all_slopes, num_};
    for (int i = begin; i < end; ++i) {
      const Dtype* d = distances_.cpu_data() + (i - begin) * num_;
      Dtype* slopes = all_slopes + (i - begin) * num_;
      caffe_metric::split_by_class(i, num_, labels, &positives, &negatives);
      if (rule_.type == caffe_metric::HINGE && !swap_) {
        caffe_metric::hinge_of_all(rule_.margin, d, positives, negatives,
                                   slopes, stats);
      } else {
        caffe_metric::loss_of_all(rule_, d, swap_ ? &matrices : NULL, positives,
                                  negatives, slopes, stats);
      }
      if (use_pair_) {
        caffe_metric::pairs_of_all(d, positives, negatives, slopes, stats);
      }
    }
    if (with_gradient) {
      AddStripGradient(begin, end, x);
    }
  }
  if (with_gradient && metric_.distance != caffe_metric::LP) {
    caffe_metric::finish_gradient(metric_.distance, num_, dim_,
                                  prepared_.cpu_data(), row_norms_.cpu_data(),
                                  row_sums_.cpu_data(),
                                  gradient_.mutable_cpu_data());
  }
  has_gradient_ = with_gradient;
}

template <typename Dtype>
void TripletLossLayer<Dtype>::AddStripGradient(int begin, int end,
                                               const Dtype* x) {
  const int rows = end - begin;
  const Dtype* distances = distances_.cpu_data();
  Dtype* v = slopes_.mutable_cpu_data();
  Dtype* gradient = gradient_.mutable_cpu_data();
  if (metric_.distance == caffe_metric::LP) {
    for (int i = begin; i < end; ++i) {
      for (int j = 0; j < num_; ++j) {
        caffe_metric::add_distance_gradient(
            metric_, dim_, v[(i - begin) * num_ + j], x + i * dim_,
            x + j * dim_, gradient + i * dim_, gradient + j * dim_);
      }
    }
    return;
  }
  for (int k = 0; k < rows * num_; ++k) {
    v[k] = caffe_metric::gram_weight(metric_.distance, distances[k], v[k]);
  }
  // gradient -= (v + v^T) u, and the row sums of v + v^T.
  const Dtype* u = prepared_.cpu_data();
  Dtype* row_sums = row_sums_.mutable_cpu_data();
  if (rows == num_) {
    caffe_metric::add_transpose(num_, v);
  } else {
    caffe_cpu_gemm<Dtype>(CblasTrans, CblasNoTrans, num_, dim_, rows, Dtype(-1),
                          v, u + begin * dim_, Dtype(1), gradient);
    for (int i = 0; i < rows; ++i) {
      caffe_metric::add_scaled(num_, Dtype(1), v + i * num_, row_sums);
    }
  }
  caffe_cpu_gemm<Dtype>(CblasNoTrans, CblasNoTrans, rows, dim_, num_, Dtype(-1),
                        v, u, Dtype(1), gradient + begin * dim_);
  for (int i = 0; i < rows; ++i) {
    row_sums[begin + i] += caffe_metric::sum(num_, v + i * num_);
  }
}

template <typename Dtype>
void TripletLossLayer<Dtype>::Report(const TripletStats& stats,
                                     const vector<Blob<Dtype>*>& top) {
  const int groups = layout_ == GROUPS ? num_ / group_size_ : num_;
  const Dtype own = layout_ == MINED ? std::max(stats.active, 1.) : 2. * groups;
  normalizer_ = this->Normalizer(own, stats.selected, stats.active, groups);
  top[0]->mutable_cpu_data()[0] = stats.loss / normalizer_;
  const double count = std::max(stats.selected, 1.);
  const double reports[] = {stats.active, stats.d_ap, stats.d_an};
  for (size_t i = 1; i < top.size(); ++i) {
    top[i]->mutable_cpu_data()[0] = reports[i - 1] / count;
  }
}

template <typename Dtype>
void TripletLossLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom,
                                          const vector<Blob<Dtype>*>& top) {
  triplets_.clear();
  terms_.clear();
  if (layout_ == MINED) {
    this->CheckFinite(*bottom[0], "features");
    this->CheckLabels(*bottom[1]);
  } else if (layout_ == WEIGHTED_ROWS) {
    this->CheckFinite(*bottom[3], "weights");
  }
  TripletStats stats;
  if (dense()) {
    AddAll(bottom, this->phase_ == TRAIN, &stats);
  } else {
    if (layout_ == MINED) {
      MineTriplets(bottom);
    } else {
      ListTriplets();
    }
    AddListed(bottom, &stats);
  }
  Report(stats, top);
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
  if (dense()) {
    if (propagate_down[0]) {
      if (!has_gradient_) {
        TripletStats stats;
        AddAll(bottom, true, &stats);
      }
      caffe_cpu_scale(gradient_.count(), scale, gradient_.cpu_data(),
                      bottom[0]->mutable_cpu_diff());
    }
    return;
  }
  // Rows of a triplet, and where their gradients go; those of a bottom that
  // does not propagate go nowhere.
  const Dtype* data[3];
  Dtype* diff[3];
  vector<Dtype> nowhere(dim_);
  for (int role = 0; role < 3; ++role) {
    const int i = layout_ >= ROWS ? role : 0;
    data[role] = bottom[i]->cpu_data();
    diff[role] = propagate_down[i] ? bottom[i]->mutable_cpu_diff() : NULL;
  }
  for (size_t t = 0; t < terms_.size(); ++t) {
    const Term& term = terms_[t];
    const int offset[3] = {term.rows.anchor * dim_, term.rows.positive * dim_,
                           term.rows.negative * dim_};
    const Dtype* x[3];
    Dtype* dx[3];
    for (int role = 0; role < 3; ++role) {
      x[role] = data[role] + offset[role];
      dx[role] = diff[role] ? diff[role] + offset[role] : nowhere.data();
    }
    const int from = term.swapped ? 1 : 0;
    caffe_metric::add_distance_gradient(metric_, dim_, scale * term.slope_ap,
                                        x[0], x[1], dx[0], dx[1]);
    caffe_metric::add_distance_gradient(metric_, dim_, scale * term.slope_an,
                                        x[from], x[2], dx[from], dx[2]);
  }
}

#ifdef CPU_ONLY
STUB_GPU(TripletLossLayer);
#endif

INSTANTIATE_CLASS(TripletLossLayer);
REGISTER_LAYER_CLASS(TripletLoss);

}  // namespace caffe
