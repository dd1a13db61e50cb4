#ifndef CAFFE_CENTER_LOSS_LAYER_HPP_
#define CAFFE_CENTER_LOSS_LAYER_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/layers/metric_loss_layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/util/gpu_report.hpp"
#include "caffe_metric/center.hpp"

namespace caffe {

/**
 * @brief Draws the rows of a class to a centre, beside a loss that keeps the
 *        classes apart: @f$ E = \frac{1}{2N} \sum_i ||x_i - c_{y_i}||^2 @f$,
 *        Wen et al. 2016, equation 2.
 *
 * The centres are blob 0 @f$ (C \times D) @f$. With update DELTA their diff is
 * the published one, @f$ \sum (c - x) / (1 + n) @f$ over the n rows of a class
 * in the batch (equation 4), whatever the loss_weight; with GRADIENT it is the
 * derivative of E. Diffs add up over iter_size.
 *
 * @param bottom input Blob vector (length 2)
 *   -# the features @f$ (N \times D) @f$ after `axis`
 *   -# the labels @f$ (N) @f$, integers in [0, C)
 * @param top output Blob vector (length 1)
 *   -# the loss, 0 axes
 */
template <typename Dtype>
class CenterLossLayer : public MetricLossLayer<Dtype> {
 public:
  explicit CenterLossLayer(const LayerParameter& param)
      : MetricLossLayer<Dtype>(param) {}
  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom,
                          const vector<Blob<Dtype>*>& top);
  virtual void Reshape(const vector<Blob<Dtype>*>& bottom,
                       const vector<Blob<Dtype>*>& top);

  virtual inline const char* type() const { return "CenterLoss"; }
  virtual inline int ExactNumBottomBlobs() const { return 2; }
  virtual inline int ExactNumTopBlobs() const { return 1; }

 protected:
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

  int Width(const Blob<Dtype>& features) const;
  void CheckInput(const vector<Blob<Dtype>*>& bottom) const;
  /// Writes the top, of the sum of squares.
  void Report(double squares, const vector<Blob<Dtype>*>& bottom,
              const vector<Blob<Dtype>*>& top);

  int classes_, dim_, num_;
  caffe_metric::CenterUpdate update_;
  Blob<Dtype> difference_;  // (N x D): x - c, cached for backward pass, CPU

  // GPU only.
  Blob<double> squares_;  // (N): of the differences
  GpuReport<Dtype> report_;
};

}  // namespace caffe

#endif  // CAFFE_CENTER_LOSS_LAYER_HPP_
