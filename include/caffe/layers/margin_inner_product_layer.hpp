#ifndef CAFFE_MARGIN_INNER_PRODUCT_LAYER_HPP_
#define CAFFE_MARGIN_INNER_PRODUCT_LAYER_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layers/margin_layer.hpp"
#include "caffe/proto/caffe.pb.h"

namespace caffe {

/**
 * @brief An inner product with unit weights whose target logit carries a
 *        margin: @f$ z_j = scale \cdot r \cdot \cos\theta_j @f$ and
 *        @f$ z_y = scale \cdot r \cdot (\lambda \cos\theta_y +
 *            \psi(\theta_y)) / (1 + \lambda) @f$ for the target y, with r the
 *        feature's length. The rule of the target, A-Softmax, ArcFace or
 *        CosFace: see include/caffe_metric/margin_rule.hpp.
 *
 * In the TRAIN phase the weights are scaled to unit rows in place, and
 * @f$ \lambda = \max(base (1 + gamma \, t)^{-power}, lambda\_min) @f$ with t
 * the number of forwards so far. The TEST phase writes nothing, and has no
 * margin unless margin_in_test. With normalize_weights false the weights keep
 * their length, and so do the logits (L-Softmax).
 *
 * @param bottom input Blob vector (length 2)
 *   -# @f$ (M \times K) @f$ the features, K all axes from `axis` on
 *   -# @f$ (M) @f$ the labels, integers in [0, num_output); with
 *      ignore_negative_labels also negative ones, of rows without a margin
 * @param top output Blob vector (length 1 or 2)
 *   -# @f$ (M \times C) @f$ the logits, C = num_output
 *   -# @f$ \lambda @f$, 0 axes; does not propagate
 *
 * Blobs: the weights @f$ (C \times K) @f$ and, with persist_iteration, t (1).
 */
template <typename Dtype>
class MarginInnerProductLayer : public MarginLayer<Dtype> {
 public:
  explicit MarginInnerProductLayer(const LayerParameter& param)
      : MarginLayer<Dtype>(param) {}
  virtual void Reshape(const vector<Blob<Dtype>*>& bottom,
                       const vector<Blob<Dtype>*>& top);

  virtual inline const char* type() const { return "MarginInnerProduct"; }
  virtual inline int MaxTopBlobs() const { return 2; }

 protected:
  typedef typename MarginLayer<Dtype>::Scratch Scratch;

  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom,
                           const vector<Blob<Dtype>*>& top);
  virtual void Forward_gpu(const vector<Blob<Dtype>*>& bottom,
                           const vector<Blob<Dtype>*>& top);
  /// The equations of the gradient stand with the rule in margin_rule.hpp.
  virtual void Backward_cpu(const vector<Blob<Dtype>*>& top,
                            const vector<bool>& propagate_down,
                            const vector<Blob<Dtype>*>& bottom);
  virtual void Backward_gpu(const vector<Blob<Dtype>*>& top,
                            const vector<bool>& propagate_down,
                            const vector<Blob<Dtype>*>& bottom);
  // CPU: the margin of row i, whose logits are given.
  void SetTarget(int i, Dtype* logits);

  Blob<Dtype> maxima_;  // GPU, semihard: (pieces x M x 2), see piece_maxima
};

}  // namespace caffe

#endif  // CAFFE_MARGIN_INNER_PRODUCT_LAYER_HPP_
