#ifndef CAFFE_BATCH_LOSS_LAYER_HPP_
#define CAFFE_BATCH_LOSS_LAYER_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/layers/metric_loss_layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/util/batch_memory.hpp"
#include "caffe/util/batch_sweep.hpp"
#include "caffe/util/gpu_report.hpp"
#include "caffe/util/rule_rows.hpp"

namespace caffe {

/**
 * @brief The engine of the losses over a batch: each row, the anchor, meets all
 *        others and, with batch_memory_param, the rows of earlier batches. What
 *        an anchor's loss is, a rule says
 * (include/caffe_metric/batch_rule.hpp).
 *
 * A batch without a pair of one class, or without one of two, has loss 0 and
 * gradient 0. Where the loss is a mean over anchors, loss_param { normalization
 * } replaces its divisor: FULL and BATCH_SIZE by their number, VALID by the
 * number with a loss > 0, NONE by 1.
 *
 * @param bottom input Blob vector (length 2)
 *   -# the features @f$ (N \times D) @f$
 *   -# the labels @f$ (N) @f$
 * @param top output Blob vector (length 1 to 4), 0 axes each; only the first
 *        propagates
 *   -# the loss
 *   -# the fraction of anchors with a loss > 0
 *   -# the mean similarity or distance of the pairs of one class
 *   -# the same of the pairs of two classes
 */
template <typename Dtype>
class BatchLossLayer : public MetricLossLayer<Dtype> {
 public:
  explicit BatchLossLayer(const LayerParameter& param)
      : MetricLossLayer<Dtype>(param) {}
  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom,
                          const vector<Blob<Dtype>*>& top);
  virtual void Reshape(const vector<Blob<Dtype>*>& bottom,
                       const vector<Blob<Dtype>*>& top);

  virtual inline int ExactNumBottomBlobs() const { return 2; }
  virtual inline int MaxTopBlobs() const { return 4; }
  virtual inline bool AllowForceBackward(const int bottom_index) const {
    return bottom_index == 0;
  }

 protected:
  /// The rule of the layer's parameters, which it checks.
  virtual RuleRows<Dtype>* MakeRule() const = 0;
  /// With proxies, which are blob 0, they are the anchors, proxy c of class c,
  /// and meet the rows of the batch.
  virtual int proxies() const { return 0; }
  virtual const FillerParameter& proxy_filler() const {
    return FillerParameter::default_instance();
  }
  /// Whether a memory of earlier batches makes sense.
  virtual bool has_memory() const { return proxies() == 0; }

  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom,
                           const vector<Blob<Dtype>*>& top);
  virtual void Forward_gpu(const vector<Blob<Dtype>*>& bottom,
                           const vector<Blob<Dtype>*>& top);
  virtual void Backward_cpu(const vector<Blob<Dtype>*>& top,
                            const vector<bool>& propagate_down,
                            const vector<Blob<Dtype>*>& bottom);
  virtual void Backward_gpu(const vector<Blob<Dtype>*>& top,
                            const vector<bool>& propagate_down,
                            const vector<Blob<Dtype>*>& bottom);

  void CheckInput(const vector<Blob<Dtype>*>& bottom) const;
  /// Ends the process with the reason why a measure is not finite.
  void FailTooLarge(const vector<Blob<Dtype>*>& bottom) const;
  /// The rows that meet, in one matrix: (R x D). On the GPU proxies stand by
  /// themselves, ahead of it.
  const Blob<Dtype>& MakeRows(const vector<Blob<Dtype>*>& bottom);
  /// Writes the tops and the normaliser.
  void Report(double loss, double active, const caffe_metric::PairSums& pairs,
              const vector<Blob<Dtype>*>& top);
  void Remember(const vector<Blob<Dtype>*>& bottom);

  shared_ptr<RuleRows<Dtype>> rule_;
  BatchSweep<Dtype> sweep_;
  BatchMemory<Dtype> memory_;
  int num_, dim_, anchors_;
  Blob<Dtype> rows_;          // (R x D), where more than the bottom's meet
  Blob<Dtype> labels_;        // (R): theirs
  Blob<Dtype> proxy_labels_;  // (C): 0, 1 ... C - 1
  BatchRows<Dtype> batch_;
  Dtype normalizer_;  // cached for backward pass
  bool empty_;        // no pair of one class, or none of two
  GpuReport<Dtype> report_;
};

}  // namespace caffe

#endif  // CAFFE_BATCH_LOSS_LAYER_HPP_
