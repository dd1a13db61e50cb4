#include "caffe/layers/margin_layer.hpp"

#include <vector>

#include "caffe/util/math_functions.hpp"
#include "caffe/util/parallel_parts.hpp"
#include "caffe/util/strided_gemm.hpp"
#include "caffe_metric/labels.hpp"
#include "caffe_metric/vector_ops.hpp"

namespace caffe {

template <typename Dtype>
void MarginLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom,
                                 const vector<Blob<Dtype>*>& top) {
  CHECK_EQ(bottom[0]->count(axis_), K_)
      << Title() << ": the features' dimension must stay " << K_
      << ", bottom 0 has shape " << bottom[0]->shape_string();
  M_ = bottom[0]->count(0, axis_);
  CHECK_EQ(bottom[1]->count(), M_)
      << Title() << ": needs one label a row, has features of shape "
      << bottom[0]->shape_string() << " and labels of shape "
      << bottom[1]->shape_string();
  const vector<int> batch_shape(1, M_);
  norms_.Reshape(batch_shape);
  cosines_.Reshape(batch_shape);
  target_norms_.Reshape(batch_shape);
}

template <typename Dtype>
void MarginLayer<Dtype>::WarnOfNoBackward() {
  if (NeedsBackward() && awaits_backward_ && !warned_) {
    LOG(WARNING) << Title() << ": updates its weights in Backward, which Caffe "
                 << "does not run here, since nothing below learns: set "
                 << "force_backward: true in the net";
    warned_ = true;
  }
  awaits_backward_ = true;
}

template <typename Dtype>
void MarginLayer<Dtype>::UpdateLambda() {
  if (param_.persist_iteration()) {
    // A loaded t wins. A float holds every t up to 2^24 only: it is read where
    // it is not what was written.
    const Dtype held = this->blobs_[1]->cpu_data()[0];
    t_ = held == static_cast<Dtype>(t_) ? t_ : held;
  }
  if (train()) {
    t_ += 1;
    if (param_.persist_iteration()) {
      this->blobs_[1]->mutable_cpu_data()[0] = t_;
    }
    if (Draws()) {
      key_ = draw_key();
    }
    WarnOfNoBackward();
  }
  target_.rule.lambda = caffe_metric::annealed_lambda<double>(
      param_.base(), param_.gamma(), param_.power(), param_.lambda_min(), t_);
}

template <typename Dtype>
vector<int> MarginLayer<Dtype>::ReadLabels(const Blob<Dtype>& labels) const {
  vector<int> classes(M_);
  for (int i = 0; i < M_; ++i) {
    const Dtype label = labels.cpu_data()[i];
    const bool ignored = is_ignored(labels_, label);
    classes[i] = ignored ? -1 : caffe_metric::label_index(label, C_);
    if (classes[i] < 0 && !ignored) {
      refuse_label(Title(), i, label, C_);
    }
  }
  return classes;
}

template <typename Dtype>
void MarginLayer<Dtype>::Begin(const Blob<Dtype>& features) {
  const Dtype* x = features.cpu_data();
  Dtype* norms = norms_.mutable_cpu_data();
  for (int i = 0; i < M_; ++i) {
    norms[i] = caffe_metric::norm(K_, x + i * K_);
  }
  features_ = x;
  if (param_.normalize_features()) {
    unit_features_.Reshape(M_, K_, 1, 1);
    Dtype* unit = unit_features_.mutable_cpu_data();
    for (int i = 0; i < M_; ++i) {
      caffe_metric::scale(K_, norms[i] == 0 ? Dtype(0) : 1 / norms[i],
                          x + i * K_, unit + i * K_);
    }
    features_ = unit;
  }
  weights_ = train() ? this->blobs_[0]->mutable_cpu_data()
                     : const_cast<Dtype*>(this->blobs_[0]->cpu_data());
  Dtype* target_norms = target_norms_.mutable_cpu_data();
  for (int i = 0; i < M_; ++i) {
    target_norms[i] =
        classes_[i] < 0 || param_.normalize_weights()
            ? Dtype(1)
            : caffe_metric::norm(K_, weights_ + row(classes_[i]) * K_);
  }
  const int classes = classes_that_meet();
  strips_ = ClassStrips(M_, classes, K_);
  factors_.Reshape(vector<int>(1, classes));
  weight_factors_ = factors_.mutable_cpu_data();
}

template <typename Dtype>
void MarginLayer<Dtype>::ForEachStrip(const StripBody& body) {
  scratch_.resize(ThreadsOfParts(strips_.parts()));
  ParallelParts(strips_.parts(), [&](int part, int thread) {
    const int part_end = strips_.PartBegin(part + 1);
    for (int begin = strips_.PartBegin(part); begin < part_end;) {
      const int end = strips_.StripEnd(begin, part_end);
      body(part, begin, end, &scratch_[thread]);
      begin = end;
    }
  });
}

template <typename Dtype>
void MarginLayer<Dtype>::ScaleWeights(int begin, int end) {
  for (int j = begin; j < end; ++j) {
    weight_factors_[j] = 1;
    if (!param_.normalize_weights()) {
      continue;
    }
    Dtype* w = weights_ + row(j) * K_;
    if (caffe_metric::is_unit(caffe_metric::squared_norm(K_, w))) {
      continue;
    }
    const Dtype length = caffe_metric::norm(K_, w);
    if (length == 0) {
      continue;
    }
    if (train()) {
      caffe_metric::scale(K_, 1 / length, w, w);
    } else {
      weight_factors_[j] = 1 / length;
    }
  }
}

template <typename Dtype>
const Dtype* MarginLayer<Dtype>::StripWeights(int begin, int end,
                                              Scratch* scratch) const {
  if (in_place()) {
    return weights_ + begin * static_cast<size_t>(K_);
  }
  Dtype* unit = Scratch::Room(strips_.width() * static_cast<size_t>(K_),
                              &scratch->weights);
  for (int j = begin; j < end; ++j) {
    caffe_metric::scale(K_, weight_factors_[j], weights_ + row(j) * K_,
                        unit + (j - begin) * static_cast<size_t>(K_));
  }
  return unit;
}

template <typename Dtype>
void MarginLayer<Dtype>::StripLogits(const Dtype* weights, int begin, int end,
                                     int stride, Dtype* logits) const {
  strided_gemm(CblasNoTrans, CblasTrans, M_, end - begin, K_, target_.scale,
               features_, K_, weights, K_, Dtype(0), logits, stride);
}

INSTANTIATE_CLASS(MarginLayer);

}  // namespace caffe
