#include "caffe/layers/proxy_anchor_loss_layer.hpp"
#include "caffe_metric/proxy_anchor.hpp"

namespace caffe {

template <typename Dtype>
RuleRows<Dtype>* ProxyAnchorLossLayer<Dtype>::MakeRule() const {
  using caffe_metric::ProxyAnchorRule;
  const ProxyAnchorLossParameter& param =
      this->layer_param_.proxy_anchor_loss_param();
  CHECK(param.num_output() >= 1 && param.num_output() < 1u << 24)
      << this->Title() << ": num_output is " << param.num_output()
      << ", must be >= 1 and < 2^24";
  CHECK_GT(param.alpha(), 0)
      << this->Title() << ": alpha is " << param.alpha() << ", must be > 0";
  ProxyAnchorRule<Dtype> rule;
  rule.margin = param.margin();
  rule.alpha = param.alpha();
  return new RowsOf<Dtype, ProxyAnchorRule<Dtype>>(rule);
}

INSTANTIATE_CLASS(ProxyAnchorLossLayer);
REGISTER_LAYER_CLASS(ProxyAnchorLoss);

}  // namespace caffe
