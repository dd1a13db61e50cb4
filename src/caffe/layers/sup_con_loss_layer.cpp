#include "caffe/layers/sup_con_loss_layer.hpp"
#include "caffe_metric/sup_con.hpp"

namespace caffe {

template <typename Dtype>
RuleRows<Dtype>* SupConLossLayer<Dtype>::MakeRule() const {
  using caffe_metric::SupConRule;
  const SupConLossParameter& param = this->layer_param_.sup_con_loss_param();
  CHECK_GT(param.temperature(), 0) << this->Title() << ": temperature is "
                                   << param.temperature() << ", must be > 0";
  SupConRule<Dtype> rule;
  rule.inverse_temperature = 1 / param.temperature();
  return new RowsOf<Dtype, SupConRule<Dtype>>(rule);
}

INSTANTIATE_CLASS(SupConLossLayer);
REGISTER_LAYER_CLASS(SupConLoss);

}  // namespace caffe
