#include "caffe/layers/circle_loss_layer.hpp"
#include "caffe_metric/circle.hpp"

namespace caffe {

template <typename Dtype>
RuleRows<Dtype>* CircleLossLayer<Dtype>::MakeRule() const {
  using caffe_metric::CircleRule;
  const CircleLossParameter& param = this->layer_param_.circle_loss_param();
  CHECK_GT(param.gamma(), 0)
      << this->Title() << ": gamma is " << param.gamma() << ", must be > 0";
  CircleRule<Dtype> rule;
  rule.margin = param.margin();
  rule.gamma = param.gamma();
  return new RowsOf<Dtype, CircleRule<Dtype>>(rule);
}

INSTANTIATE_CLASS(CircleLossLayer);
REGISTER_LAYER_CLASS(CircleLoss);

}  // namespace caffe
