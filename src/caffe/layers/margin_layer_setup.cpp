#include <cmath>
#include <vector>

#include "caffe/filler.hpp"
#include "caffe/layers/margin_layer.hpp"

namespace caffe {

template <typename Dtype>
void MarginLayer<Dtype>::CheckParameters() const {
  const caffe_metric::TargetRule<Dtype>& rule = target_.rule;
  const bool additive = caffe_metric::has_additive_margin(rule);
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
  CHECK(!target_.reference ||
        !(additive || param_.normalize_features() || param_.scale() != 1 ||
          !param_.normalize_weights()))
      << Title() << ": gradient REFERENCE is of A-Softmax alone, without "
      << "normalize_features, scale, angular_margin and cosine_margin, and "
      << "with normalize_weights";
  if (param_.triplet() && train()) {
    check_one_solver(Title(), "triplet keeps samples of its batch as weights");
  }
}

template <typename Dtype>
vector<vector<int>> MarginLayer<Dtype>::BlobShapes() const {
  vector<vector<int>> shapes(1, vector<int>(1, C_));
  shapes[0].push_back(K_);
  if (param_.persist_iteration()) {
    shapes.push_back(vector<int>(1, 1));
  }
  return shapes;
}

template <typename Dtype>
void MarginLayer<Dtype>::SetUpBlobs() {
  const vector<vector<int>> shapes = BlobShapes();
  if (this->blobs_.size() > 0) {
    check_blobs(Title(), this->blobs_, shapes);
    LOG(INFO) << "Skipping parameter initialization";
    return;
  }
  for (size_t i = 0; i < shapes.size(); ++i) {
    this->blobs_.push_back(shared_ptr<Blob<Dtype>>(new Blob<Dtype>(shapes[i])));
  }
  FillBlobs();
}

template <typename Dtype>
void MarginLayer<Dtype>::FillBlobs() {
  shared_ptr<Filler<Dtype>> weight_filler(
      GetFiller<Dtype>(param_.weight_filler()));
  weight_filler->Fill(this->blobs_[0].get());
  if (param_.persist_iteration()) {
    this->blobs_[1]->mutable_cpu_data()[0] = t_;
  }
}

template <typename Dtype>
void MarginLayer<Dtype>::SetUpParamSpecs() {
  LayerParameter* layer_param = &this->layer_param_;
  // Caffe itself goes by what the prototxt says: it takes a second param that
  // is not there for one that learns, and runs Backward for it.
  if (layer_param->param_size() == 1 && layer_param->param(0).lr_mult() == 0 &&
      param_.persist_iteration() && !NeedsBackward()) {
    LOG(WARNING) << Title() << ": its one param has lr_mult 0, but Caffe runs "
                 << "Backward for the second blob, t: give it two, "
                 << "param { lr_mult: 0 } param { lr_mult: 0 }";
  }
  // The solver must leave everything but the weights alone.
  const int own_blobs = this->blobs_.size();
  for (int i = layer_param->param_size(); own_blobs > 1 && i < own_blobs; ++i) {
    ParamSpec* spec = layer_param->add_param();
    if (i > 0) {
      spec->set_lr_mult(0);
    }
  }
  for (int i = 1; i < own_blobs; ++i) {
    CHECK_EQ(layer_param->param(i).lr_mult(), 0)
        << Title() << ": param " << i << " is "
        << (i == 1 && param_.persist_iteration() ? "the iteration count"
                                                 : "the layer's own")
        << ", its lr_mult must be 0";
    layer_param->mutable_param(i)->set_decay_mult(0);
  }
  if (param_.triplet() && (layer_param->param_size() == 0 ||
                           layer_param->param(0).lr_mult() != 0)) {
    LOG(WARNING) << Title() << ": with triplet, momentum and weight decay "
                 << "would move the weights, which are samples: give them "
                 << "param { lr_mult: 0 decay_mult: 0 }";
  }
}

template <typename Dtype>
void MarginLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom,
                                    const vector<Blob<Dtype>*>& top) {
  param_ = this->layer_param_.margin_inner_product_param();
  target_.rule.m = 1 + static_cast<int>(param_.type());
  target_.rule.lambda = 0;
  target_.rule.angular_margin = param_.angular_margin();
  target_.rule.cosine_margin = param_.cosine_margin();
  target_.scale = param_.scale();
  target_.margin = applies_margin();
  target_.reference =
      param_.gradient() == MarginInnerProductParameter_Gradient_REFERENCE;
  target_.normalize_features = param_.normalize_features();
  target_.normalize_weights = param_.normalize_weights();
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
  labels_ = caffe_metric::label_rule<Dtype>(C_);
  labels_.ignore_negative = param_.ignore_negative_labels();
  t_ = param_.iteration();
  key_ = 0;
  awaits_backward_ = warned_ = false;
  SetUpBlobs();
  SetUpParamSpecs();
  this->param_propagate_down_.resize(this->blobs_.size(), true);
  const bool anneals = param_.gamma() > 0 && param_.power() != 0;
  if (!train() && !param_.persist_iteration() && anneals &&
      (param_.margin_in_test() || top.size() > 1)) {
    LOG(WARNING) << Title() << ": with persist_iteration: false the TEST "
                 << "phase does not see the training's t: lambda stays that "
                 << "of iteration " << param_.iteration();
  }
}

// margin_layer.cpp has the rest of the class.
template class MarginLayer<float>;
template class MarginLayer<double>;

}  // namespace caffe
