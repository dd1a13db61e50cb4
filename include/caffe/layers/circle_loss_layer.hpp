#ifndef CAFFE_CIRCLE_LOSS_LAYER_HPP_
#define CAFFE_CIRCLE_LOSS_LAYER_HPP_

#include "caffe/layers/batch_loss_layer.hpp"

namespace caffe {

/**
 * @brief Weighs each similarity by how far it is from where it should be.
 *        Circle loss, Sun et al. 2020, equations 6 to 10: with s cosine
 *        similarities, P rows of the anchor's class and N others,
 *        @f$ E_i = \ln(1 + \sum_N e^{\gamma [s+m]_+ (s-m)}
 *                          \sum_P e^{-\gamma [1+m-s]_+ (s-1+m)}) @f$,
 *        the mean over anchors with @f$ E_i > 0 @f$. The factors
 *        @f$ [\cdot]_+ @f$ are constants in backward, as in the paper.
 *
 * Bottoms, tops and memory: see BatchLossLayer. The rule:
 * include/caffe_metric/circle.hpp.
 */
template <typename Dtype>
class CircleLossLayer : public BatchLossLayer<Dtype> {
 public:
  explicit CircleLossLayer(const LayerParameter& param)
      : BatchLossLayer<Dtype>(param) {}
  virtual inline const char* type() const { return "CircleLoss"; }

 protected:
  virtual RuleRows<Dtype>* MakeRule() const;
};

}  // namespace caffe

#endif  // CAFFE_CIRCLE_LOSS_LAYER_HPP_
