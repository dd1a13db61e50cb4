#include <algorithm>
#include <vector>

#include "caffe/layers/metric_loss_layer.hpp"
#include "caffe/util/math_functions.hpp"

namespace caffe {

template <typename Dtype>
void MetricLossLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom,
                                        const vector<Blob<Dtype>*>& top) {
  LossLayer<Dtype>::LayerSetUp(bottom, top);
  for (int i = 1; i < this->layer_param_.loss_weight_size(); ++i) {
    CHECK_EQ(this->layer_param_.loss_weight(i), 0)
        << Title() << ": top " << i
        << " only reports, its loss_weight must be 0";
  }
  while (this->layer_param_.loss_weight_size() < static_cast<int>(top.size())) {
    this->layer_param_.add_loss_weight(0);
  }
}

template <typename Dtype>
void MetricLossLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom,
                                     const vector<Blob<Dtype>*>& top) {
  for (size_t i = 0; i < bottom.size(); ++i) {
    CHECK(bottom[i]->num_axes() > 0 && bottom[i]->count() > 0)
        << Title() << ": bottom " << i << " must have rows, its shape is "
        << bottom[i]->shape_string();
  }
  const vector<int> scalar_shape(0);
  for (size_t i = 0; i < top.size(); ++i) {
    top[i]->Reshape(scalar_shape);
  }
}

template <typename Dtype>
Dtype MetricLossLayer<Dtype>::Normalizer(Dtype own, double selected,
                                         double active, int batch_size) const {
  if (!this->layer_param_.loss_param().has_normalization()) {
    return own;
  }
  switch (this->layer_param_.loss_param().normalization()) {
    case LossParameter_NormalizationMode_FULL:
      return std::max(selected, 1.);
    case LossParameter_NormalizationMode_VALID:
      return std::max(active, 1.);
    case LossParameter_NormalizationMode_BATCH_SIZE:
      return batch_size;
    default:
      return 1;
  }
}

template <typename Dtype>
void MetricLossLayer<Dtype>::ZeroDiff(Blob<Dtype>* bottom) const {
  caffe_set(bottom->count(), Dtype(0), bottom->mutable_cpu_diff());
}

INSTANTIATE_CLASS(MetricLossLayer);

}  // namespace caffe
