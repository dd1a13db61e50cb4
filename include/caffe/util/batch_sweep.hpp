#ifndef CAFFE_UTIL_BATCH_SWEEP_HPP_
#define CAFFE_UTIL_BATCH_SWEEP_HPP_

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/util/batch_distances.hpp"
#include "caffe/util/rule_rows.hpp"

namespace caffe {

/**
 * @brief The losses of all anchors of a batch, and the gradient of their sum: a
 *        strip of the anchors' measures at a time, of which a rule makes losses
 *        and derivatives. The rule is an argument, kept by the layer.
 */
template <typename Dtype>
class BatchSweep {
 public:
  BatchSweep() : has_gradient_(false) {}
  /// x @f$ (R \times D) @f$: the last batch.columns rows are what the anchors,
  /// the first of all rows, meet; of those the first `receiving` get a
  /// gradient.
  void Run_cpu(const BatchRows<Dtype>& batch, const Blob<Dtype>& x,
               int receiving, bool with_gradient, RuleRows<Dtype>* rule);
  void Run_gpu(const BatchRows<Dtype>& batch, const Blob<Dtype>& x,
               int receiving, bool with_gradient, RuleRows<Dtype>* rule);
  /// Whether gradient() is of the last run.
  bool has_gradient() const { return has_gradient_; }
  /// @f$ (R \times D) @f$, of the sum of all losses; on the CPU.
  const Blob<Dtype>& gradient() const { return distances_.gradient(); }
  /// On the GPU: the gradient by x's rows [first, first + rows), times the
  /// loss's diff and `scale`, is written to dx or, with `add`, added there.
  void WriteGradient_gpu(int first, int rows, const Dtype* loss_diff,
                         Dtype scale, bool add, Dtype* dx) const;

 private:
  void Start(const BatchRows<Dtype>& batch, const Blob<Dtype>& x, int receiving,
             bool with_gradient, RuleRows<Dtype>* rule);

  BatchDistances<Dtype> distances_;
  bool has_gradient_;
};

}  // namespace caffe

#endif  // CAFFE_UTIL_BATCH_SWEEP_HPP_
