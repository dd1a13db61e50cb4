#ifndef CAFFE_MARGIN_INNER_PRODUCT_LAYER_HPP_
#define CAFFE_MARGIN_INNER_PRODUCT_LAYER_HPP_

#include <stdint.h>

#include <string>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/util/metric_checks.hpp"
#include "caffe_metric/margin_rule.hpp"

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
 * margin unless margin_in_test.
 *
 * @param bottom input Blob vector (length 2)
 *   -# @f$ (M \times K) @f$ the features, K all axes from `axis` on
 *   -# @f$ (M) @f$ the labels, integers in [0, num_output)
 * @param top output Blob vector (length 1 or 2)
 *   -# @f$ (M \times C) @f$ the logits, C = num_output
 *   -# @f$ \lambda @f$, 0 axes; does not propagate
 *
 * Blobs: the weights @f$ (C \times K) @f$ and, with persist_iteration, t (1).
 */
template <typename Dtype>
class MarginInnerProductLayer : public Layer<Dtype> {
 public:
  explicit MarginInnerProductLayer(const LayerParameter& param)
      : Layer<Dtype>(param) {}
  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom,
                          const vector<Blob<Dtype>*>& top);
  virtual void Reshape(const vector<Blob<Dtype>*>& bottom,
                       const vector<Blob<Dtype>*>& top);

  virtual inline const char* type() const { return "MarginInnerProduct"; }
  virtual inline int ExactNumBottomBlobs() const { return 2; }
  virtual inline int MinTopBlobs() const { return 1; }
  virtual inline int MaxTopBlobs() const { return 2; }
  virtual inline bool AllowForceBackward(const int bottom_index) const {
    return bottom_index == 0;
  }

 protected:
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

  string Title() const { return layer_title(this->layer_param_); }
  void CheckParameters() const;
  void SetUpBlobs();
  void SetUpParamSpecs();
  /// Counts a TRAIN forward and sets lambda.
  void UpdateLambda();
  bool applies_margin() const {
    return this->phase_ == TRAIN || param_.margin_in_test();
  }
  /// The length that a feature counts with; 0 for a zero feature.
  Dtype radius(Dtype norm) const {
    return param_.normalize_features() && norm > 0 ? Dtype(1) : norm;
  }
  caffe_metric::FeatureGradient<Dtype> TargetGradient(Dtype cosine,
                                                      Dtype norm) const;

  // CPU only: measures rows [begin, end) of the weights, and scales them to
  // unit length in the TRAIN phase.
  void ScaleWeights(int begin, int end);
  // CPU only: the unit rows [begin, end): the weights themselves in the TRAIN
  // phase, strip_weights_ in the TEST phase.
  const Dtype* UnitWeights(int begin, int end);
  // CPU only: what the logits are the products of, unit features or x itself.
  const Dtype* LogitFeatures(const Blob<Dtype>& features) const;
  void MeasureFeatures(const Blob<Dtype>& features);
  void SetTargets(const Dtype* labels, Dtype* logits);
  void MarkSemihard(const Dtype* labels, int i, Dtype plain,
                    const Dtype* logits);
  void AddWeightGradient(int begin, int end, const Dtype* weights,
                         const Dtype* labels, const Dtype* features,
                         const Dtype* top_diff);
  void FinishFeatureGradient(int i, int label, Dtype target_diff,
                             const Dtype* x, Dtype* dx);
  void CopySamplesToWeights(const Blob<Dtype>& features,
                            const Blob<Dtype>& labels);

  // GPU only: a label that the host does not have is checked on the device,
  // and the verdict read in the next call, so that nobody waits for it.
  void StartLabelCheck(const Blob<Dtype>& labels);
  void EndLabelCheck();
  void AddWeightGradientGpu(const Dtype* features, const Dtype* top_diff);

  MarginInnerProductParameter param_;
  caffe_metric::TargetRule<Dtype> rule_;  // its lambda is that of the forward
  int axis_;
  int M_, K_, C_;
  int strip_;     // classes that are handled at a time
  double t_;      // TRAIN forwards so far; blobs_[1] holds it if persistent
  uint64_t key_;  // of the draws of `triplet`, drawn in each TRAIN forward

  Blob<Dtype> norms_;           // (M): ||x||, cached for backward pass
  Blob<Dtype> cosines_;         // (M): of the target, cached for backward pass
  Blob<Dtype> unit_features_;   // (M x K): with normalize_features
  Blob<Dtype> weight_factors_;  // (C): 1 / ||w|| in the TEST phase
  Blob<Dtype> strip_weights_;   // (strip x K): unit weights, TEST phase
  Blob<Dtype> strip_diff_;      // (strip x K): their gradient
  vector<bool> is_semihard_;    // (M): rows that keep their gradient

  // GPU only.
  Blob<int> keep_;              // (M): is_semihard_
  Blob<Dtype> target_diffs_;    // (M): the targets' entries of the top's diff
  Blob<Dtype> bad_label_;       // (2): row + 1 and label, on the device
  Blob<Dtype> bad_label_seen_;  // (2): its copy on the host
};

}  // namespace caffe

#endif  // CAFFE_MARGIN_INNER_PRODUCT_LAYER_HPP_
