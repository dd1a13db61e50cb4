#include <algorithm>
#include <set>
#include <vector>

#include "caffe/layers/margin_layer.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe/util/strided_gemm.hpp"
#include "caffe_metric/random.hpp"
#include "caffe_metric/vector_ops.hpp"

namespace caffe {

using caffe_metric::FeatureGradient;

template <typename Dtype>
void MarginLayer<Dtype>::BeginGradient(const vector<bool>& propagate_down,
                                       const vector<Blob<Dtype>*>& bottom) {
  awaits_backward_ = false;
  bottom_diff_ = propagate_down[0] ? bottom[0]->mutable_cpu_diff() : NULL;
  weight_diff_ =
      this->param_propagate_down_[0] && !param_.triplet() && !UpdatesWeights()
          ? this->blobs_[0]->mutable_cpu_diff()
          : NULL;
  features_ = param_.normalize_features() ? unit_features_.cpu_data()
                                          : bottom[0]->cpu_data();
  weights_ = const_cast<Dtype*>(this->blobs_[0]->cpu_data());
  const Dtype plain = 1;
  const FeatureGradient<Dtype> none = {plain, 0};
  gradients_.assign(M_, none);
  target_diffs_.assign(M_, Dtype(0));
  for (int i = 0; i < M_; ++i) {
    const Dtype norm = norms_.cpu_data()[i];
    if (classes_[i] >= 0 && norm != 0) {
      gradients_[i] = target_gradient(target_, cosines_.cpu_data()[i], norm);
    }
  }
  const int parts = strips_.parts() > 1 && bottom_diff_ ? strips_.parts() : 0;
  partial_.resize(parts);
  for (int part = 0; part < parts; ++part) {
    Scratch::Room(static_cast<size_t>(M_) * K_, &partial_[part]);
  }
}

template <typename Dtype>
void MarginLayer<Dtype>::Restore(const vector<int>& targets, int begin,
                                 int stride, Dtype* logits_diff) const {
  for (size_t n = 0; n < targets.size(); ++n) {
    *Entry(targets[n], begin, stride, logits_diff) = target_diffs_[targets[n]];
  }
}

template <typename Dtype>
void MarginLayer<Dtype>::StripGradient(int part, const Dtype* weights,
                                       int begin, int end, int stride,
                                       Dtype* logits_diff, Scratch* scratch) {
  const int classes = end - begin;
  vector<int> targets;  // rows whose class is in the strip
  for (int i = 0; i < M_; ++i) {
    if (begin <= classes_[i] && classes_[i] < end) {
      targets.push_back(i);
    }
  }
  for (size_t n = 0; n < targets.size(); ++n) {
    const int i = targets[n];
    target_diffs_[i] = *Entry(i, begin, stride, logits_diff);
    *Entry(i, begin, stride, logits_diff) *= gradients_[i].of_weight;
  }
  if (bottom_diff_) {
    strided_gemm(CblasNoTrans, CblasNoTrans, M_, K_, classes, target_.scale,
                 logits_diff, stride, weights, K_,
                 Dtype(begin > strips_.PartBegin(part)),
                 partial_.empty() ? bottom_diff_ : partial_[part].data(), K_);
  }
  if (target_.reference) {
    Restore(targets, begin, stride, logits_diff);
  }
  if (weight_diff_ || UpdatesWeights()) {
    Dtype* diff = Scratch::Room(strips_.width() * static_cast<size_t>(K_),
                                &scratch->diff);
    strided_gemm(CblasTrans, CblasNoTrans, classes, K_, M_, target_.scale,
                 logits_diff, stride, features_, K_, Dtype(0), diff, K_);
    for (size_t n = 0; n < targets.size() && !param_.normalize_weights(); ++n) {
      AddLengthGradient(targets[n], begin, weights, diff);
    }
    for (int j = begin; j < end; ++j) {
      const size_t offset = (j - begin) * static_cast<size_t>(K_);
      FinishWeightGradient(j, weights + offset, diff + offset);
    }
  }
  Restore(targets, begin, stride, logits_diff);
}

template <typename Dtype>
void MarginLayer<Dtype>::AddLengthGradient(int i, int begin,
                                           const Dtype* weights, Dtype* diff) {
  const size_t offset = (classes_[i] - begin) * static_cast<size_t>(K_);
  const Dtype length = target_norms_.cpu_data()[i];
  if (length == 0) {
    return;
  }
  const Dtype along = target_diffs_[i] * gradients_[i].of_feature *
                      target_length(target_, norms_.cpu_data()[i], length) /
                      length / length;
  caffe_metric::add_scaled(K_, along, weights + offset, diff + offset);
}

template <typename Dtype>
Dtype MarginLayer<Dtype>::Along(const Dtype* weights, const Dtype* diff) const {
  return Projects() ? caffe_metric::dot(K_, diff, weights) : Dtype(0);
}

template <typename Dtype>
void MarginLayer<Dtype>::FinishWeightGradient(int j, const Dtype* weights,
                                              const Dtype* diff) {
  caffe_metric::add_tangent(K_, weight_factors_[j], Along(weights, diff),
                            weights, diff, weight_diff_ + row(j) * K_);
}

template <typename Dtype>
void MarginLayer<Dtype>::FinishFeatureGradient(int i, const Dtype* x,
                                               Dtype* dx) {
  const Dtype norm = norms_.cpu_data()[i];
  if (norm == 0 || !is_semihard_[i]) {
    caffe_set(K_, Dtype(0), dx);
    return;
  }
  if (param_.normalize_features()) {
    const Dtype* unit = features_ + i * static_cast<size_t>(K_);
    const Dtype along = caffe_metric::dot(K_, dx, unit);
    for (int k = 0; k < K_; ++k) {
      dx[k] = (dx[k] - along * unit[k]) / norm;
    }
  } else {
    const Dtype length =
        target_length(target_, norm, target_norms_.cpu_data()[i]);
    caffe_metric::add_scaled(
        K_,
        target_diffs_[i] * gradients_[i].of_feature * (length / norm) / norm, x,
        dx);
  }
}

template <typename Dtype>
void MarginLayer<Dtype>::EndGradient(const vector<bool>& propagate_down,
                                     const vector<Blob<Dtype>*>& bottom) {
  for (int i = 0; bottom_diff_ && i < M_; ++i) {
    const size_t offset = i * static_cast<size_t>(K_);
    Dtype* dx = bottom_diff_ + offset;
    for (size_t part = 0; part < partial_.size(); ++part) {
      const Dtype* from = partial_[part].data() + offset;
      if (part == 0) {
        caffe_copy(K_, from, dx);
      } else {
        caffe_metric::add_scaled(K_, Dtype(1), from, dx);
      }
    }
    FinishFeatureGradient(i, bottom[0]->cpu_data() + offset, dx);
  }
  if (propagate_down[1]) {
    caffe_set(M_, Dtype(0), bottom[1]->mutable_cpu_diff());
  }
  if (param_.triplet()) {
    caffe_set(this->blobs_[0]->count(), Dtype(0),
              this->blobs_[0]->mutable_cpu_diff());
    if (train()) {
      CopySamplesToWeights(*bottom[0]);
    }
  }
}

template <typename Dtype>
void MarginLayer<Dtype>::CopySamplesToWeights(const Blob<Dtype>& features) {
  std::set<int> seen;
  Dtype* weights = this->blobs_[0]->mutable_cpu_data();
  for (int i = M_ - 1; i >= 0; --i) {
    if (classes_[i] < 0 || !seen.insert(classes_[i]).second) {
      continue;
    }
    const size_t y = row(classes_[i]);
    const Dtype norm = norms_.cpu_data()[i];
    if (norm > 0 && caffe_metric::coin(key_, y)) {
      caffe_metric::scale(K_, 1 / norm, features.cpu_data() + i * K_,
                          weights + y * K_);
    }
  }
}

// margin_layer.cpp has the rest of the class.
template class MarginLayer<float>;
template class MarginLayer<double>;

}  // namespace caffe
