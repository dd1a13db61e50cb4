#ifndef CAFFE_METRIC_LOSS_LAYER_HPP_
#define CAFFE_METRIC_LOSS_LAYER_HPP_

#include <stdint.h>

#include <string>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/layers/loss_layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/util/metric_checks.hpp"

namespace caffe {

/**
 * @brief What TripletLoss and RankHardLoss share: a loss of 0 axes, further
 *        scalar tops that report and never propagate, the normaliser, and the
 *        checks of their input.
 */
template <typename Dtype>
class MetricLossLayer : public LossLayer<Dtype> {
 public:
  explicit MetricLossLayer(const LayerParameter& param)
      : LossLayer<Dtype>(param) {}
  /// Gives the first top its default weight of 1 and the further ones 0.
  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom,
                          const vector<Blob<Dtype>*>& top);
  /// All tops are scalars of 0 axes.
  virtual void Reshape(const vector<Blob<Dtype>*>& bottom,
                       const vector<Blob<Dtype>*>& top);

  virtual inline int ExactNumBottomBlobs() const { return -1; }
  virtual inline int ExactNumTopBlobs() const { return -1; }
  virtual inline int MinTopBlobs() const { return 1; }

 protected:
  /// What the loss is divided by: `own`, or what loss_param asks for. FULL
  /// and VALID are at least 1.
  Dtype Normalizer(Dtype own, double selected, double active,
                   int batch_size) const;
  string Title() const { return layer_title(this->layer_param_); }
  void CheckLabels(const Blob<Dtype>& labels) const {
    check_labels(Title(), labels);
  }
  void CheckFinite(const Blob<Dtype>& rows, const char* what) const {
    check_finite(Title(), rows, what);
  }
  /// Label and weight bottoms get a zero gradient if they are asked for one.
  void ZeroDiff(Blob<Dtype>* bottom) const;
  static uint64_t DrawKey() { return draw_key(); }
};

}  // namespace caffe

#endif  // CAFFE_METRIC_LOSS_LAYER_HPP_
