#include <algorithm>
#include <vector>

#include "caffe/layers/margin_softmax_loss_layer.hpp"

namespace caffe {

template <typename Dtype>
void MarginSoftmaxLossLayer<Dtype>::LayerSetUp(
    const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  softmax_ = this->layer_param_.margin_softmax_loss_param();
  CHECK(softmax_.sample_rate() > 0 && softmax_.sample_rate() <= 1)
      << this->Title() << ": sample_rate is " << softmax_.sample_rate()
      << ", must be in (0, 1]";
  CHECK(softmax_.label_smoothing() >= 0 && softmax_.label_smoothing() < 1)
      << this->Title() << ": label_smoothing is " << softmax_.label_smoothing()
      << ", must be in [0, 1)";
  CHECK(softmax_.update_rate() >= 0 && softmax_.update_momentum() >= 0 &&
        softmax_.update_momentum() < 1 && softmax_.update_decay() >= 0)
      << this->Title() << ": update_rate is " << softmax_.update_rate()
      << ", update_momentum " << softmax_.update_momentum() << ", update_decay "
      << softmax_.update_decay() << ", must be >= 0, and the momentum < 1";
  CHECK(!softmax_.own_update() ||
        !this->layer_param_.margin_inner_product_param().triplet())
      << this->Title() << ": own_update and triplet exclude each other";
  if (softmax_.own_update() && this->phase_ == TRAIN) {
    check_one_solver(this->Title(),
                     "own_update moves the weights by its batch");
  }
  const LossParameter& loss = this->layer_param_.loss_param();
  // As in SoftmaxWithLoss: `normalize` counts where `normalization` is not set.
  normalization_ =
      loss.has_normalization() || !loss.has_normalize() ? loss.normalization()
      : loss.normalize() ? LossParameter_NormalizationMode_VALID
                         : LossParameter_NormalizationMode_BATCH_SIZE;
  MarginLayer<Dtype>::LayerSetUp(bottom, top);
  this->labels_.has_ignored = loss.has_ignore_label();
  this->labels_.ignored = loss.ignore_label();
  kept_ = false;
  if (this->layer_param_.loss_weight_size() == 0) {
    this->layer_param_.add_loss_weight(1);
  }
  for (int i = 1; i < this->layer_param_.loss_weight_size(); ++i) {
    CHECK_EQ(this->layer_param_.loss_weight(i), 0)
        << this->Title() << ": top " << i
        << " only reports, its loss_weight must be 0";
  }
  while (this->layer_param_.loss_weight_size() < static_cast<int>(top.size())) {
    this->layer_param_.add_loss_weight(0);
  }
  if (softmax_.own_update() && (this->layer_param_.param_size() == 0 ||
                                this->layer_param_.param(0).lr_mult() != 0)) {
    LOG(WARNING) << this->Title() << ": with own_update the solver moves the "
                 << "weights, too, by momentum and weight decay: give them "
                 << "param { lr_mult: 0 decay_mult: 0 }";
  }
}

template <typename Dtype>
vector<vector<int>> MarginSoftmaxLossLayer<Dtype>::BlobShapes() const {
  vector<vector<int>> shapes = MarginLayer<Dtype>::BlobShapes();
  if (softmax_.own_update()) {
    shapes.push_back(shapes[0]);
    shapes.push_back(vector<int>(1, 1));
  }
  return shapes;
}

template <typename Dtype>
void MarginSoftmaxLossLayer<Dtype>::FillBlobs() {
  MarginLayer<Dtype>::FillBlobs();
  if (softmax_.own_update()) {
    this->blobs_.back()->mutable_cpu_data()[0] = softmax_.update_rate();
  }
}

template <typename Dtype>
void MarginSoftmaxLossLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom,
                                            const vector<Blob<Dtype>*>& top) {
  MarginLayer<Dtype>::Reshape(bottom, top);
  for (size_t i = 0; i < top.size(); ++i) {
    top[i]->Reshape(vector<int>(0));
  }
}

template <typename Dtype>
bool MarginSoftmaxLossLayer<Dtype>::KeepsLogits() const {
  const double bytes =
      static_cast<double>(this->M_) * this->classes_that_meet() * sizeof(Dtype);
  const double most = 256. * (1 << 20);
  return softmax_.keep_logits() ==
             MarginSoftmaxLossParameter_KeepLogits_ALWAYS ||
         (softmax_.keep_logits() ==
              MarginSoftmaxLossParameter_KeepLogits_AUTO &&
          bytes <= most);
}

template <typename Dtype>
Dtype MarginSoftmaxLossLayer<Dtype>::Normalizer() const {
  switch (normalization_) {
    case LossParameter_NormalizationMode_VALID:
      return std::max(1, valid_);
    case LossParameter_NormalizationMode_NONE:
      return 1;
    default:  // FULL and BATCH_SIZE: a row has one label
      return this->M_;
  }
}

template <typename Dtype>
caffe_metric::Update<Dtype> MarginSoftmaxLossLayer<Dtype>::GetUpdate() const {
  const caffe_metric::Update<Dtype> update = {
      this->blobs_.back()->cpu_data()[0], softmax_.update_momentum(),
      softmax_.update_decay()};
  return update;
}

template <typename Dtype>
void MarginSoftmaxLossLayer<Dtype>::SetTops(double loss, double right,
                                            const vector<Blob<Dtype>*>& top) {
  top[0]->mutable_cpu_data()[0] = loss / Normalizer();
  if (top.size() > 1) {
    top[1]->mutable_cpu_data()[0] = this->target_.rule.lambda;
  }
  if (top.size() > 2) {
    top[2]->mutable_cpu_data()[0] = right / std::max(1, valid_);
  }
}

// margin_softmax_loss_layer.cpp has the rest of the class.
template class MarginSoftmaxLossLayer<float>;
template class MarginSoftmaxLossLayer<double>;

}  // namespace caffe
