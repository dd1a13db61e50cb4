#ifndef CAFFE_PROXY_ANCHOR_LOSS_LAYER_HPP_
#define CAFFE_PROXY_ANCHOR_LOSS_LAYER_HPP_

#include "caffe/layers/batch_loss_layer.hpp"

namespace caffe {

/**
 * @brief Pulls rows to a learned proxy of their class, and off all others.
 *        Proxy anchor loss, Kim et al. 2020, equation 4: with s the cosine
 *        similarities of the rows and the proxies of the classes,
 *        @f$ E = \frac{1}{|C_+|} \sum_{C_+} \ln(1 + \sum_{i \in c}
 *                e^{-\alpha (s_{ic} - \delta)})
 *              + \frac{1}{C} \sum_C \ln(1 + \sum_{i \notin c}
 *                e^{\alpha (s_{ic} + \delta)}) @f$,
 *        @f$ C_+ @f$ the classes of the batch. The anchors are the proxies,
 *        blob 0 @f$ (C \times D) @f$; their unit length is taken inside. Labels
 *        are below C.
 *
 * Bottoms, tops and memory: see BatchLossLayer. The rule:
 * include/caffe_metric/proxy_anchor.hpp.
 */
template <typename Dtype>
class ProxyAnchorLossLayer : public BatchLossLayer<Dtype> {
 public:
  explicit ProxyAnchorLossLayer(const LayerParameter& param)
      : BatchLossLayer<Dtype>(param) {}
  virtual inline const char* type() const { return "ProxyAnchorLoss"; }

 protected:
  virtual RuleRows<Dtype>* MakeRule() const;
  virtual int proxies() const {
    return this->layer_param_.proxy_anchor_loss_param().num_output();
  }
  virtual const FillerParameter& proxy_filler() const {
    return this->layer_param_.proxy_anchor_loss_param().proxy_filler();
  }
};

}  // namespace caffe

#endif  // CAFFE_PROXY_ANCHOR_LOSS_LAYER_HPP_
