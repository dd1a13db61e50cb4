#ifndef CAFFE_MARGIN_LAYER_HPP_
#define CAFFE_MARGIN_LAYER_HPP_

#include <stdint.h>

#include <functional>
#include <string>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/util/class_strips.hpp"
#include "caffe/util/metric_checks.hpp"
#include "caffe_metric/labels.hpp"
#include "caffe_metric/margin_rule.hpp"

namespace caffe {

/**
 * @brief What MarginInnerProduct and MarginSoftmaxLoss share: the weights, the
 *        count t and lambda, and both products of a pass, a strip of classes
 *        at a time. The equations stand in
 * include/caffe_metric/margin_rule.hpp.
 *
 * Of M rows of features of dimension K and C classes, n classes meet the batch:
 * all of them, or those that were drawn. "Class j" below is the j-th that
 * meets, row(j) its row of the weights.
 */
template <typename Dtype>
class MarginLayer : public Layer<Dtype> {
 public:
  explicit MarginLayer(const LayerParameter& param) : Layer<Dtype>(param) {}
  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom,
                          const vector<Blob<Dtype>*>& top);
  /// Everything but the tops.
  virtual void Reshape(const vector<Blob<Dtype>*>& bottom,
                       const vector<Blob<Dtype>*>& top);

  virtual inline int ExactNumBottomBlobs() const { return 2; }
  virtual inline int MinTopBlobs() const { return 1; }
  virtual inline bool AllowForceBackward(const int bottom_index) const {
    return bottom_index == 0;
  }

 protected:
  /// A thread's own memory.
  struct Scratch {
    vector<Dtype> weights, logits, diff;
    static Dtype* Room(size_t count, vector<Dtype>* memory) {
      if (memory->size() < count) {
        memory->resize(count);
      }
      return memory->data();
    }
  };
  /// body(part, begin, end, scratch) of the classes [begin, end) of a strip.
  typedef std::function<void(int, int, int, Scratch*)> StripBody;

  string Title() const { return layer_title(this->layer_param_); }
  void CheckParameters() const;
  /// The shapes of the layer's blobs: the weights and, if kept, t.
  virtual vector<vector<int>> BlobShapes() const;
  void SetUpBlobs();
  virtual void FillBlobs();
  void SetUpParamSpecs();
  /// Counts a TRAIN forward, draws its key, and sets lambda.
  void UpdateLambda();
  /// Whether a TRAIN forward draws a key.
  virtual bool Draws() const { return param_.triplet(); }
  /// Whether the layer does something in Backward that no gradient asks for.
  virtual bool NeedsBackward() const { return param_.triplet(); }
  /// Whether Backward moves the weights instead of giving them a diff.
  virtual bool UpdatesWeights() const { return false; }
  /// Warns once where such a Backward did not come.
  void WarnOfNoBackward();
  bool train() const { return this->phase_ == TRAIN; }
  bool applies_margin() const { return train() || param_.margin_in_test(); }
  /// Whether there is no gradient along the weights: their length is fixed.
  bool Projects() const {
    return param_.normalize_weights() && !target_.reference;
  }
  /// Whether weights come to a product as they are in their blob.
  bool in_place() const {
    return rows_.empty() && (train() || !param_.normalize_weights());
  }
  int classes_that_meet() const {
    return rows_.empty() ? C_ : static_cast<int>(rows_.size());
  }
  size_t row(int j) const { return rows_.empty() ? j : rows_[j]; }
  /// Ends the process where a label is none; the classes of the batch, -1 for
  /// rows that have none.
  vector<int> ReadLabels(const Blob<Dtype>& labels) const;

  // CPU: measures the features and the weights that meet them.
  void Begin(const Blob<Dtype>& features);
  void ForEachStrip(const StripBody& body);
  // Scales rows [begin, end) to unit length, in the TRAIN phase in place.
  void ScaleWeights(int begin, int end);
  const Dtype* StripWeights(int begin, int end, Scratch* scratch) const;
  // logits[i * stride + j - begin], without margins.
  void StripLogits(const Dtype* weights, int begin, int end, int stride,
                   Dtype* logits) const;
  // The target's entry of row i in the logits of a strip.
  Dtype* Entry(int i, int begin, int stride, Dtype* logits) const {
    return logits + i * static_cast<size_t>(stride) + classes_[i] - begin;
  }
  // Gives the targets' entries of these rows what they were.
  void Restore(const vector<int>& targets, int begin, int stride,
               Dtype* logits_diff) const;
  // Both products with the logits' diff; the targets' entries are changed on
  // the way, and restored.
  void StripGradient(int part, const Dtype* weights, int begin, int end,
                     int stride, Dtype* logits_diff, Scratch* scratch);
  // diff . w, where there is no gradient along w.
  Dtype Along(const Dtype* weights, const Dtype* diff) const;
  // What is done with the gradient by class j's weights, which is `diff` before
  // the weights' length counts.
  virtual void FinishWeightGradient(int j, const Dtype* weights,
                                    const Dtype* diff);
  // The gradient of L-Softmax along the weights of row i's target.
  void AddLengthGradient(int i, int begin, const Dtype* weights, Dtype* diff);
  void FinishFeatureGradient(int i, const Dtype* x, Dtype* dx);
  void BeginGradient(const vector<bool>& propagate_down,
                     const vector<Blob<Dtype>*>& bottom);
  void EndGradient(const vector<bool>& propagate_down,
                   const vector<Blob<Dtype>*>& bottom);
  void CopySamplesToWeights(const Blob<Dtype>& features);

  // GPU: the targets of the batch, and 1 in their marks, unless that is NULL. A
  // label that the host does not have is checked on the device, and the verdict
  // read in the next call, so that nobody waits for it.
  void StartLabelCheck(const Blob<Dtype>& labels, Blob<int>* targets,
                       int* marks);
  void EndLabelCheck();
  void BeginGpu(const Blob<Dtype>& features);
  /// The features that the logits are the products of.
  const Dtype* FeaturesGpu(const Blob<Dtype>& features) const;
  /// Measures classes [begin, end), and scales them as ScaleWeights does; the
  /// unit rows go to `unit`, where it is not NULL.
  void ScaleWeightsGpu(int begin, int end, Dtype* unit);
  /// Classes of a strip on the GPU.
  int GpuWidth() const {
    return ClassStrips::GpuWidth(M_, classes_that_meet(), K_);
  }
  /// The unit rows of classes [begin, end), which ScaleWeightsGpu has measured.
  const Dtype* StripWeightsGpu(int begin, int end);
  /// logits[i * stride + j - begin], without margins.
  void StripLogitsGpu(const Dtype* features, const Dtype* weights, int begin,
                      int end, int stride, Dtype* logits);
  /// dx (+)= the strip's part of A w; the first strip begins it.
  void StripFeatureGradientGpu(const Dtype* weights, int begin, int end,
                               int stride, const Dtype* logits_diff, Dtype* dx);
  /// The product by the weights with the diff of all logits, whose targets'
  /// entries have the slope in them already.
  void AddWeightGradientGpu(const Dtype* features, const Dtype* logits_diff);
  /// The gradient by the unit `weights` of classes [begin, end), but for the
  /// tangent; the diff's rows lie `stride` apart.
  Dtype* WeightProductGpu(const Dtype* features, const Dtype* weights,
                          int begin, int end, int stride,
                          const Dtype* logits_diff);
  void AddWeightDiffGpu(const Dtype* weights, int begin, int end,
                        const Dtype* diff);
  /// rows_ on the device; NULL: all classes meet.
  const int* RowsGpu() const {
    return rows_.empty() ? NULL : rows_gpu_.gpu_data();
  }
  void EndGradientGpu(const vector<bool>& propagate_down,
                      const vector<Blob<Dtype>*>& bottom);

  MarginInnerProductParameter param_;
  caffe_metric::TargetOptions<Dtype> target_;  // lambda is that of the forward
  caffe_metric::LabelRule<Dtype> labels_;
  int axis_;
  int M_, K_, C_;
  double t_;      // TRAIN forwards so far; blobs_[1] holds it if persistent
  uint64_t key_;  // of the draws, drawn anew in each TRAIN forward
  bool awaits_backward_, warned_;

  // Cached for backward pass.
  Blob<Dtype> norms_;          // (M): ||x||
  Blob<Dtype> cosines_;        // (M): of the target
  Blob<Dtype> target_norms_;   // (M): ||w_y||, with normalize_weights false
  Blob<Dtype> unit_features_;  // (M x K): with normalize_features
  Blob<Dtype> factors_;        // (n): 1 / ||w||, where they are not unit rows
  vector<int> classes_;        // (M): the target, or -1
  vector<int> rows_;  // (n): of the classes that meet; empty: all. On the GPU
                      // rows_gpu_ may be the only one that knows them
  vector<bool> is_semihard_;  // (M): rows that keep their gradient

  // CPU only.
  ClassStrips strips_;
  vector<Scratch> scratch_;  // a thread each
  const Dtype* features_;    // x, or unit rows of it
  Dtype* weights_;
  Dtype* weight_factors_;  // factors_
  Dtype* weight_diff_;     // NULL: not asked for
  Dtype* bottom_diff_;     // NULL: not asked for
  vector<caffe_metric::FeatureGradient<Dtype>> gradients_;  // (M)
  vector<Dtype> target_diffs_;     // (M): the targets' entries of the diff
  vector<vector<Dtype>> partial_;  // (parts x M x K): gradients by x

  // GPU only.
  Blob<int> targets_;             // (M): classes_
  Blob<int> rows_gpu_;            // (n): rows_
  Blob<int> keep_;                // (M): is_semihard_
  Blob<Dtype> target_diffs_gpu_;  // (M): target_diffs_
  Blob<Dtype> strip_weights_;   // (strip x K): unit weights, where not in place
  bool strip_is_all_;           // it holds those of all that meet
  Blob<Dtype> strip_diff_;      // (strip x K): the weights' gradient
  Blob<Dtype> bad_label_;       // (2): row + 1 and label, on the device
  Blob<Dtype> bad_label_seen_;  // (2): its copy on the host
};

}  // namespace caffe

#endif  // CAFFE_MARGIN_LAYER_HPP_
