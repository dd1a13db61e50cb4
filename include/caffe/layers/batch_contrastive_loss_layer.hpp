#ifndef CAFFE_BATCH_CONTRASTIVE_LOSS_LAYER_HPP_
#define CAFFE_BATCH_CONTRASTIVE_LOSS_LAYER_HPP_

#include "caffe/layers/batch_loss_layer.hpp"

namespace caffe {

/**
 * @brief Pulls all pairs of one class together and pushes near others apart.
 *        Contrastive loss, Hadsell et al. 2006, over all pairs of a batch:
 *        with d the L2 distances of rows of unit length,
 *        @f$ E = \frac{1}{2} \mathrm{mean}_{same} \max(0, d - m_+)^2
 *              + \frac{1}{2} \mathrm{mean}_{d < m_-} (m_- - d)^2 @f$, the
 *        second over the pairs of two classes that are nearer than
 *        @f$ m_- @f$. An anchor's loss is its part of E.
 *
 * Bottoms, tops and memory: see BatchLossLayer. The rule:
 * include/caffe_metric/batch_contrastive.hpp.
 */
template <typename Dtype>
class BatchContrastiveLossLayer : public BatchLossLayer<Dtype> {
 public:
  explicit BatchContrastiveLossLayer(const LayerParameter& param)
      : BatchLossLayer<Dtype>(param) {}
  virtual inline const char* type() const { return "BatchContrastiveLoss"; }

 protected:
  virtual RuleRows<Dtype>* MakeRule() const;
};

}  // namespace caffe

#endif  // CAFFE_BATCH_CONTRASTIVE_LOSS_LAYER_HPP_
