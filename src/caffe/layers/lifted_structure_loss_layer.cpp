#include "caffe/layers/lifted_structure_loss_layer.hpp"
#include "caffe_metric/lifted_structure.hpp"

namespace caffe {

template <typename Dtype>
RuleRows<Dtype>* LiftedStructureLossLayer<Dtype>::MakeRule() const {
  using caffe_metric::LiftedGeneralizedRule;
  using caffe_metric::LiftedSongRule;
  const LiftedStructureLossParameter& param =
      this->layer_param_.lifted_structure_loss_param();
  if (param.form() == LiftedStructureLossParameter_Form_GENERALIZED) {
    LiftedGeneralizedRule<Dtype> rule;
    rule.margin = param.margin();
    rule.normalize = param.normalize();
    return new RowsOf<Dtype, LiftedGeneralizedRule<Dtype>>(rule);
  }
  LiftedSongRule<Dtype> rule;
  rule.margin = param.margin();
  rule.normalize = param.normalize();
  return new RowsOf<Dtype, LiftedSongRule<Dtype>>(rule);
}

INSTANTIATE_CLASS(LiftedStructureLossLayer);
REGISTER_LAYER_CLASS(LiftedStructureLoss);

}  // namespace caffe
