#include "caffe/layers/multi_similarity_loss_layer.hpp"
#include "caffe_metric/multi_similarity.hpp"

namespace caffe {

template <typename Dtype>
RuleRows<Dtype>* MultiSimilarityLossLayer<Dtype>::MakeRule() const {
  using caffe_metric::MultiSimilarityRule;
  const MultiSimilarityLossParameter& param =
      this->layer_param_.multi_similarity_loss_param();
  CHECK_GT(param.alpha(), 0)
      << this->Title() << ": alpha is " << param.alpha() << ", must be > 0";
  CHECK_GT(param.beta(), 0)
      << this->Title() << ": beta is " << param.beta() << ", must be > 0";
  MultiSimilarityRule<Dtype> rule;
  rule.alpha = param.alpha();
  rule.beta = param.beta();
  rule.base = param.base();
  rule.epsilon = param.epsilon();
  return new RowsOf<Dtype, MultiSimilarityRule<Dtype>>(rule);
}

INSTANTIATE_CLASS(MultiSimilarityLossLayer);
REGISTER_LAYER_CLASS(MultiSimilarityLoss);

}  // namespace caffe
