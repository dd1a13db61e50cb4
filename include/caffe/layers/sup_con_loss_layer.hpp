#ifndef CAFFE_SUP_CON_LOSS_LAYER_HPP_
#define CAFFE_SUP_CON_LOSS_LAYER_HPP_

#include "caffe/layers/batch_loss_layer.hpp"

namespace caffe {

/**
 * @brief A softmax of each row over all others, its class the target.
 *        Supervised contrastive learning, Khosla et al. 2020, equation 2: with
 *        s cosine similarities, P rows of anchor i's class and N others,
 *        @f$ E_i = -\frac{1}{|P|} \sum_P \left( s/\tau -
 *            \ln \sum_{P \cup N} e^{s/\tau} \right) @f$,
 *        the mean over anchors with @f$ E_i > 0 @f$.
 *
 * Bottoms, tops and memory: see BatchLossLayer. The rule:
 * include/caffe_metric/sup_con.hpp.
 */
template <typename Dtype>
class SupConLossLayer : public BatchLossLayer<Dtype> {
 public:
  explicit SupConLossLayer(const LayerParameter& param)
      : BatchLossLayer<Dtype>(param) {}
  virtual inline const char* type() const { return "SupConLoss"; }

 protected:
  virtual RuleRows<Dtype>* MakeRule() const;
};

}  // namespace caffe

#endif  // CAFFE_SUP_CON_LOSS_LAYER_HPP_
