#ifndef CAFFE_MULTI_SIMILARITY_LOSS_LAYER_HPP_
#define CAFFE_MULTI_SIMILARITY_LOSS_LAYER_HPP_

#include "caffe/layers/batch_loss_layer.hpp"

namespace caffe {

/**
 * @brief Pulls and pushes the pairs that the others of a row make hard.
 *        Multi-similarity loss, Wang et al. 2019, equations 7 to 9 and 14:
 *        with s cosine similarities, P rows of the anchor's class and N others,
 *        @f$ E_i = \frac{1}{\alpha} \ln(1+\sum_P e^{-\alpha(s-\lambda)})
 *                + \frac{1}{\beta} \ln(1+\sum_N e^{\beta(s-\lambda)}) @f$
 *        over the pairs of P with @f$ s - \epsilon < \max_N s @f$ and those of
 *        N with @f$ s + \epsilon > \min_P s @f$ (all, for
 *        @f$ \epsilon < 0 @f$); the mean over the anchors.
 *
 * Bottoms, tops and memory: see BatchLossLayer. The rule:
 * include/caffe_metric/multi_similarity.hpp.
 */
template <typename Dtype>
class MultiSimilarityLossLayer : public BatchLossLayer<Dtype> {
 public:
  explicit MultiSimilarityLossLayer(const LayerParameter& param)
      : BatchLossLayer<Dtype>(param) {}
  virtual inline const char* type() const { return "MultiSimilarityLoss"; }

 protected:
  virtual RuleRows<Dtype>* MakeRule() const;
};

}  // namespace caffe

#endif  // CAFFE_MULTI_SIMILARITY_LOSS_LAYER_HPP_
