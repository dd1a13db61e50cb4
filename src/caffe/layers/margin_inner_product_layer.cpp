#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "caffe/filler.hpp"
#include "caffe/layers/margin_inner_product_layer.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe/util/strided_gemm.hpp"
#include "caffe_metric/random.hpp"
#include "caffe_metric/vector_ops.hpp"

namespace caffe {

// Elements of a strip of weights: small enough to stay in the cache between a
// matrix product and the sweep over it.
const int kWeightStrip = 1 << 18;

template <typename Dtype>
void MarginInnerProductLayer<Dtype>::CheckParameters() const {
  const bool additive = caffe_metric::has_additive_margin(rule_);
  CHECK_GE(param_.num_output(), 1) << Title() << ": num_output must be >= 1";
  CHECK_GT(param_.scale(), 0) << Title() << ": scale must be > 0";
  CHECK_GE(param_.lambda_min(), 0) << Title() << ": lambda_min must be >= 0";
  CHECK_GE(param_.base(), 0) << Title() << ": base must be >= 0";
  CHECK_GE(param_.gamma(), 0) << Title() << ": gamma must be >= 0";
  CHECK_GE(param_.iteration(), 0) << Title() << ": iteration must be >= 0";
  CHECK(param_.angular_margin() >= 0 && param_.angular_margin() < M_PI / 2)
      << Title() << ": angular_margin is " << param_.angular_margin()
      << ", must be in [0, pi/2)";
  CHECK(!additive ||
        param_.type() == MarginInnerProductParameter_MarginType_SINGLE)
      << Title() << ": angular_margin and cosine_margin need type SINGLE, has "
      << MarginInnerProductParameter_MarginType_Name(param_.type());
  CHECK(param_.gradient() == MarginInnerProductParameter_Gradient_EXACT ||
        !(additive || param_.normalize_features() || param_.scale() != 1))
      << Title() << ": gradient REFERENCE is of A-Softmax alone, without "
      << "normalize_features, scale, angular_margin and cosine_margin";
}

template <typename Dtype>
void MarginInnerProductLayer<Dtype>::SetUpBlobs() {
  vector<vector<int>> shapes(1, vector<int>(1, C_));
  shapes[0].push_back(K_);
  if (param_.persist_iteration()) {
    shapes.push_back(vector<int>(1, 1));
  }
  if (this->blobs_.size() > 0) {
    check_blobs(Title(), this->blobs_, shapes);
    LOG(INFO) << "Skipping parameter initialization";
    return;
  }
  this->blobs_.resize(shapes.size());
  this->blobs_[0].reset(new Blob<Dtype>(shapes[0]));
  shared_ptr<Filler<Dtype>> weight_filler(
      GetFiller<Dtype>(param_.weight_filler()));
  weight_filler->Fill(this->blobs_[0].get());
  if (param_.persist_iteration()) {
    this->blobs_[1].reset(new Blob<Dtype>(shapes[1]));
    this->blobs_[1]->mutable_cpu_data()[0] = t_;
  }
}

template <typename Dtype>
void MarginInnerProductLayer<Dtype>::SetUpParamSpecs() {
  LayerParameter* layer_param = &this->layer_param_;
  // The solver must leave the iteration count alone.
  if (param_.persist_iteration()) {
    if (layer_param->param_size() == 0) {
      layer_param->add_param();
    }
    if (layer_param->param_size() == 1) {
      ParamSpec* count_spec = layer_param->add_param();
      count_spec->set_lr_mult(0);
      count_spec->set_decay_mult(0);
    }
    CHECK_EQ(layer_param->param(1).lr_mult(), 0)
        << Title() << ": the second param is the iteration count, its lr_mult "
        << "must be 0";
    layer_param->mutable_param(1)->set_decay_mult(0);
  }
  if (param_.triplet() && (layer_param->param_size() == 0 ||
                           layer_param->param(0).lr_mult() != 0)) {
    LOG(WARNING) << Title() << ": with triplet, momentum and weight decay "
                 << "would move the weights, which are samples: give them "
                 << "param { lr_mult: 0 decay_mult: 0 }";
  }
}

template <typename Dtype>
void MarginInnerProductLayer<Dtype>::LayerSetUp(
    const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  param_ = this->layer_param_.margin_inner_product_param();
  rule_.m = 1 + static_cast<int>(param_.type());
  rule_.lambda = 0;
  rule_.angular_margin = param_.angular_margin();
  rule_.cosine_margin = param_.cosine_margin();
  CheckParameters();
  const int axes = bottom[0]->num_axes();
  CHECK(param_.axis() >= -axes && param_.axis() < axes)
      << Title() << ": axis is " << param_.axis() << ", bottom 0 has shape "
      << bottom[0]->shape_string();
  axis_ = bottom[0]->CanonicalAxisIndex(param_.axis());
  CHECK_GT(bottom[0]->count(), 0)
      << Title() << ": bottom 0 is empty, its shape is "
      << bottom[0]->shape_string();
  K_ = bottom[0]->count(axis_);
  C_ = param_.num_output();
  t_ = param_.iteration();
  key_ = 0;
  SetUpBlobs();
  SetUpParamSpecs();
  this->param_propagate_down_.resize(this->blobs_.size(), true);
}

template <typename Dtype>
void MarginInnerProductLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom,
                                             const vector<Blob<Dtype>*>& top) {
  CHECK_EQ(bottom[0]->count(axis_), K_)
      << Title() << ": the features' dimension must stay " << K_
      << ", bottom 0 has shape " << bottom[0]->shape_string();
  M_ = bottom[0]->count(0, axis_);
  CHECK_EQ(bottom[1]->count(), M_)
      << Title() << ": needs one label a row, has features of shape "
      << bottom[0]->shape_string() << " and labels of shape "
      << bottom[1]->shape_string();
  vector<int> top_shape = bottom[0]->shape();
  top_shape.resize(axis_ + 1);
  top_shape[axis_] = C_;
  top[0]->Reshape(top_shape);
  if (top.size() > 1) {
    top[1]->Reshape(vector<int>(0));
  }
  const vector<int> batch_shape(1, M_);
  norms_.Reshape(batch_shape);
  cosines_.Reshape(batch_shape);
  weight_factors_.Reshape(vector<int>(1, C_));
  strip_ = std::min(C_, std::max(64, kWeightStrip / K_));
}

template <typename Dtype>
void MarginInnerProductLayer<Dtype>::UpdateLambda() {
  if (param_.persist_iteration()) {
    t_ = this->blobs_[1]->cpu_data()[0];  // a loaded t wins
  }
  if (this->phase_ == TRAIN) {
    t_ += 1;
    if (param_.persist_iteration()) {
      this->blobs_[1]->mutable_cpu_data()[0] = t_;
    }
    if (param_.triplet()) {
      key_ = draw_key();
    }
  }
  rule_.lambda = caffe_metric::annealed_lambda<double>(
      param_.base(), param_.gamma(), param_.power(), param_.lambda_min(), t_);
}

template <typename Dtype>
caffe_metric::FeatureGradient<Dtype>
MarginInnerProductLayer<Dtype>::TargetGradient(Dtype cosine, Dtype norm) const {
  if (!applies_margin()) {
    const caffe_metric::FeatureGradient<Dtype> plain = {1, 0};
    return plain;
  }
  if (param_.gradient() == MarginInnerProductParameter_Gradient_REFERENCE) {
    return caffe_metric::reference_gradient(rule_, cosine, norm);
  }
  return caffe_metric::exact_gradient(caffe_metric::target_curve(rule_, cosine),
                                      cosine);
}

template <typename Dtype>
void MarginInnerProductLayer<Dtype>::ScaleWeights(int begin, int end) {
  Dtype* factors = weight_factors_.mutable_cpu_data();
  for (int j = begin; j < end; ++j) {
    const size_t offset = j * static_cast<size_t>(K_);
    const Dtype square =
        caffe_metric::squared_norm(K_, this->blobs_[0]->cpu_data() + offset);
    const bool as_it_is = caffe_metric::is_unit(square) || square == 0;
    factors[j] = as_it_is ? Dtype(1) : 1 / std::sqrt(square);
    if (this->phase_ == TRAIN && !as_it_is) {
      caffe_scal(K_, factors[j], this->blobs_[0]->mutable_cpu_data() + offset);
      factors[j] = 1;
    }
  }
}

template <typename Dtype>
const Dtype* MarginInnerProductLayer<Dtype>::UnitWeights(int begin, int end) {
  const Dtype* weights =
      this->blobs_[0]->cpu_data() + begin * static_cast<size_t>(K_);
  if (this->phase_ == TRAIN) {
    return weights;
  }
  strip_weights_.Reshape(strip_, K_, 1, 1);
  Dtype* unit = strip_weights_.mutable_cpu_data();
  for (int j = begin; j < end; ++j) {
    const int offset = (j - begin) * K_;
    caffe_cpu_scale(K_, weight_factors_.cpu_data()[j], weights + offset,
                    unit + offset);
  }
  return unit;
}

template <typename Dtype>
void MarginInnerProductLayer<Dtype>::MeasureFeatures(
    const Blob<Dtype>& features) {
  const Dtype* x = features.cpu_data();
  Dtype* norms = norms_.mutable_cpu_data();
  for (int i = 0; i < M_; ++i) {
    norms[i] = std::sqrt(caffe_metric::squared_norm(K_, x + i * K_));
  }
  if (param_.normalize_features()) {
    unit_features_.Reshape(M_, K_, 1, 1);
    for (int i = 0; i < M_; ++i) {
      caffe_cpu_scale(K_, norms[i] > 0 ? 1 / norms[i] : Dtype(0), x + i * K_,
                      unit_features_.mutable_cpu_data() + i * K_);
    }
  }
}

template <typename Dtype>
const Dtype* MarginInnerProductLayer<Dtype>::LogitFeatures(
    const Blob<Dtype>& features) const {
  return param_.normalize_features() ? unit_features_.cpu_data()
                                     : features.cpu_data();
}

template <typename Dtype>
void MarginInnerProductLayer<Dtype>::MarkSemihard(const Dtype* labels, int i,
                                                  Dtype plain,
                                                  const Dtype* logits) {
  const int y = static_cast<int>(labels[i]);
  bool right = true;          // with the margin
  bool right_without = true;  // argmax is the lowest index on a tie
  for (int j = 0; j < C_; ++j) {
    if (j != y) {
      right &= j < y ? logits[j] < logits[y] : logits[j] <= logits[y];
      right_without &= j < y ? logits[j] < plain : logits[j] <= plain;
    }
  }
  is_semihard_[i] = !right && (right_without || rule_.m == 1);
}

template <typename Dtype>
void MarginInnerProductLayer<Dtype>::SetTargets(const Dtype* labels,
                                                Dtype* logits) {
  const Dtype scale = param_.scale();
  const Dtype* norms = norms_.cpu_data();
  Dtype* cosines = cosines_.mutable_cpu_data();
  is_semihard_.assign(M_, true);
  for (int i = 0; i < M_; ++i) {
    Dtype* row = logits + i * static_cast<size_t>(C_);
    Dtype* target = row + static_cast<int>(labels[i]);
    const Dtype plain = *target;
    const Dtype length = scale * radius(norms[i]);
    const Dtype cosine = length > 0 ? plain / length : Dtype(0);
    cosines[i] = std::max(Dtype(-1), std::min(cosine, Dtype(1)));
    if (applies_margin()) {
      *target = length * caffe_metric::target_curve(rule_, cosines[i]).value;
      if (param_.semihard()) {
        MarkSemihard(labels, i, plain, row);
      }
    }
  }
}

template <typename Dtype>
void MarginInnerProductLayer<Dtype>::Forward_cpu(
    const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  check_labels(Title(), *bottom[1], C_);
  UpdateLambda();
  MeasureFeatures(*bottom[0]);
  const Dtype* features = LogitFeatures(*bottom[0]);
  Dtype* logits = top[0]->mutable_cpu_data();
  for (int begin = 0; begin < C_; begin += strip_) {
    const int end = std::min(begin + strip_, C_);
    ScaleWeights(begin, end);
    const Dtype* weights = UnitWeights(begin, end);
    strided_gemm(CblasNoTrans, CblasTrans, M_, end - begin, K_,
                 Dtype(param_.scale()), features, K_, weights, K_, Dtype(0),
                 logits + begin, C_);
  }
  SetTargets(bottom[1]->cpu_data(), logits);
  if (top.size() > 1) {
    top[1]->mutable_cpu_data()[0] = rule_.lambda;
  }
}

template <typename Dtype>
void MarginInnerProductLayer<Dtype>::AddWeightGradient(int begin, int end,
                                                       const Dtype* weights,
                                                       const Dtype* labels,
                                                       const Dtype* features,
                                                       const Dtype* top_diff) {
  const bool exact =
      param_.gradient() == MarginInnerProductParameter_Gradient_EXACT;
  const Dtype scale = param_.scale();
  strip_diff_.Reshape(strip_, K_, 1, 1);
  Dtype* strip_diff = strip_diff_.mutable_cpu_data();
  strided_gemm(CblasTrans, CblasNoTrans, end - begin, K_, M_, scale,
               top_diff + begin, C_, features, K_, Dtype(0), strip_diff, K_);
  for (int i = 0; exact && i < M_; ++i) {
    const int y = static_cast<int>(labels[i]);
    if (begin <= y && y < end) {
      const Dtype slope =
          TargetGradient(cosines_.cpu_data()[i], norms_.cpu_data()[i])
              .of_weight;
      caffe_metric::add_scaled(
          K_, scale * top_diff[i * static_cast<size_t>(C_) + y] * (slope - 1),
          features + i * K_, strip_diff + (y - begin) * K_);
    }
  }
  const Dtype* factors = weight_factors_.cpu_data();
  Dtype* weight_diff = this->blobs_[0]->mutable_cpu_diff();
  for (int j = begin; j < end; ++j) {
    // Along the weights there is no gradient: their length is fixed.
    const Dtype* diff = strip_diff + (j - begin) * K_;
    const Dtype* w = weights + (j - begin) * static_cast<size_t>(K_);
    const Dtype along = exact ? caffe_metric::dot(K_, diff, w) : Dtype(0);
    Dtype* dw = weight_diff + j * static_cast<size_t>(K_);
    for (int k = 0; k < K_; ++k) {
      dw[k] += factors[j] * (diff[k] - along * w[k]);
    }
  }
}

template <typename Dtype>
void MarginInnerProductLayer<Dtype>::FinishFeatureGradient(int i, int label,
                                                           Dtype target_diff,
                                                           const Dtype* x,
                                                           Dtype* dx) {
  const Dtype norm = norms_.cpu_data()[i];
  if (norm == 0 || !is_semihard_[i]) {
    caffe_set(K_, Dtype(0), dx);
    return;
  }
  const caffe_metric::FeatureGradient<Dtype> gradient =
      TargetGradient(cosines_.cpu_data()[i], norm);
  const Dtype factor = param_.scale() * target_diff;
  caffe_metric::add_scaled(
      K_, factor * (gradient.of_weight - 1) * weight_factors_.cpu_data()[label],
      this->blobs_[0]->cpu_data() + label * static_cast<size_t>(K_), dx);
  caffe_metric::add_scaled(K_, factor * gradient.of_feature / norm, x, dx);
  if (param_.normalize_features()) {
    const Dtype along = caffe_metric::dot(K_, dx, x) / (norm * norm);
    for (int k = 0; k < K_; ++k) {
      dx[k] = (dx[k] - along * x[k]) / norm;
    }
  }
}

template <typename Dtype>
void MarginInnerProductLayer<Dtype>::CopySamplesToWeights(
    const Blob<Dtype>& features, const Blob<Dtype>& labels) {
  std::set<int> seen;
  for (int i = M_ - 1; i >= 0; --i) {
    const int y = static_cast<int>(labels.cpu_data()[i]);
    const Dtype norm = norms_.cpu_data()[i];
    if (seen.insert(y).second && norm > 0 && caffe_metric::coin(key_, y)) {
      caffe_cpu_scale(
          K_, 1 / norm, features.cpu_data() + i * K_,
          this->blobs_[0]->mutable_cpu_data() + y * static_cast<size_t>(K_));
    }
  }
}

template <typename Dtype>
void MarginInnerProductLayer<Dtype>::Backward_cpu(
    const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
    const vector<Blob<Dtype>*>& bottom) {
  const bool to_weights = this->param_propagate_down_[0] && !param_.triplet();
  const Dtype* labels = bottom[1]->cpu_data();
  const Dtype* x = bottom[0]->cpu_data();
  const Dtype* features = LogitFeatures(*bottom[0]);
  const Dtype* top_diff = top[0]->cpu_diff();
  Dtype* bottom_diff = propagate_down[0] ? bottom[0]->mutable_cpu_diff() : NULL;
  for (int begin = 0; begin < C_; begin += strip_) {
    const int end = std::min(begin + strip_, C_);
    const Dtype* weights = UnitWeights(begin, end);
    if (bottom_diff) {
      strided_gemm(CblasNoTrans, CblasNoTrans, M_, K_, end - begin,
                   Dtype(param_.scale()), top_diff + begin, C_, weights, K_,
                   Dtype(begin > 0), bottom_diff, K_);
    }
    if (to_weights) {
      AddWeightGradient(begin, end, weights, labels, features, top_diff);
    }
  }
  for (int i = 0; bottom_diff && i < M_; ++i) {
    const int y = static_cast<int>(labels[i]);
    FinishFeatureGradient(i, y, top_diff[i * static_cast<size_t>(C_) + y],
                          x + i * K_, bottom_diff + i * K_);
  }
  if (propagate_down[1]) {
    caffe_set(M_, Dtype(0), bottom[1]->mutable_cpu_diff());
  }
  if (param_.triplet()) {
    caffe_set(this->blobs_[0]->count(), Dtype(0),
              this->blobs_[0]->mutable_cpu_diff());
    if (this->phase_ == TRAIN) {
      CopySamplesToWeights(*bottom[0], *bottom[1]);
    }
  }
}

#ifdef CPU_ONLY
STUB_GPU(MarginInnerProductLayer);
#endif

INSTANTIATE_CLASS(MarginInnerProductLayer);
REGISTER_LAYER_CLASS(MarginInnerProduct);

}  // namespace caffe
