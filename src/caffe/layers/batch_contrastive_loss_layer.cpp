#include "caffe/layers/batch_contrastive_loss_layer.hpp"
#include "caffe_metric/batch_contrastive.hpp"

namespace caffe {

template <typename Dtype>
RuleRows<Dtype>* BatchContrastiveLossLayer<Dtype>::MakeRule() const {
  using caffe_metric::BatchContrastiveRule;
  const BatchContrastiveLossParameter& param =
      this->layer_param_.batch_contrastive_loss_param();
  CHECK_GE(param.positive_margin(), 0)
      << this->Title() << ": positive_margin is " << param.positive_margin()
      << ", must be >= 0";
  CHECK_GT(param.negative_margin(), 0)
      << this->Title() << ": negative_margin is " << param.negative_margin()
      << ", must be > 0";
  BatchContrastiveRule<Dtype> rule;
  rule.positive_margin = param.positive_margin();
  rule.negative_margin = param.negative_margin();
  return new RowsOf<Dtype, BatchContrastiveRule<Dtype>>(rule);
}

INSTANTIATE_CLASS(BatchContrastiveLossLayer);
REGISTER_LAYER_CLASS(BatchContrastiveLoss);

}  // namespace caffe
