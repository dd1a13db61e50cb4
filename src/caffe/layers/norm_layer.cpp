#include <vector>

#include "caffe/layers/norm_layer.hpp"
#include "caffe/util/metric_checks.hpp"
#include "caffe_metric/norm.hpp"

namespace caffe {

template <typename Dtype>
void NormLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom,
                                  const vector<Blob<Dtype>*>& top) {
  eps_ = this->layer_param_.l2_norm_param().eps();
  CHECK_GT(eps_, 0) << layer_title(this->layer_param_) << ": eps must be > 0";
}

template <typename Dtype>
void NormLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom,
                               const vector<Blob<Dtype>*>& top) {
  CHECK_GE(bottom[0]->num_axes(), 2)
      << layer_title(this->layer_param_)
      << ": needs a bottom of at least 2 axes, has shape "
      << bottom[0]->shape_string();
  CHECK_GT(bottom[0]->count(), 0)
      << layer_title(this->layer_param_)
      << ": the bottom is empty, its shape is " << bottom[0]->shape_string();
  outer_num_ = bottom[0]->shape(0);
  channels_ = bottom[0]->shape(1);
  inner_num_ = bottom[0]->count(2);
  top[0]->ReshapeLike(*bottom[0]);
  vector<int> norms_shape(2);
  norms_shape[0] = outer_num_;
  norms_shape[1] = inner_num_;
  norms_.Reshape(norms_shape);
}

template <typename Dtype>
void NormLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom,
                                   const vector<Blob<Dtype>*>& top) {
  caffe_metric::NormRoom<Dtype> room(inner_num_);
  const int item = channels_ * inner_num_;
  const Dtype* x = bottom[0]->cpu_data();
  Dtype* y = top[0]->mutable_cpu_data();
  Dtype* norms = norms_.mutable_cpu_data();
  for (int i = 0; i < outer_num_; ++i) {
    caffe_metric::norm_item(channels_, inner_num_, eps_, x + i * item,
                            y + i * item, norms + i * inner_num_, &room);
  }
}

template <typename Dtype>
void NormLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top,
                                    const vector<bool>& propagate_down,
                                    const vector<Blob<Dtype>*>& bottom) {
  if (!propagate_down[0]) {
    return;
  }
  caffe_metric::NormRoom<Dtype> room(inner_num_);
  const int item = channels_ * inner_num_;
  const Dtype* y = top[0]->cpu_data();
  const Dtype* dy = top[0]->cpu_diff();
  const Dtype* norms = norms_.cpu_data();
  Dtype* dx = bottom[0]->mutable_cpu_diff();
  for (int i = 0; i < outer_num_; ++i) {
    caffe_metric::norm_item_gradient(channels_, inner_num_, eps_, y + i * item,
                                     norms + i * inner_num_, dy + i * item,
                                     dx + i * item, &room);
  }
}

#ifdef CPU_ONLY
STUB_GPU(NormLayer)
#endif

INSTANTIATE_CLASS(NormLayer);
REGISTER_LAYER_CLASS(Norm);

}  // namespace caffe
