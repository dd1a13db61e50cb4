#ifndef CAFFE_METRIC_LOSS_LAYER_HPP_
#define CAFFE_METRIC_LOSS_LAYER_HPP_

#include <stdint.h>

#include <string>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/layers/loss_layer.hpp"
#include "caffe/proto/caffe.pb.h"

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
  /// `type 'name'`, as error messages begin.
  string Title() const;
  /// Ends the process where a label is no integer >= 0. A message names the
  /// row.
  void CheckLabels(const Blob<Dtype>& labels) const;
  /// Ends the process where a row of `what` holds NaN or Inf.
  void CheckFinite(const Blob<Dtype>& rows, const char* what) const;
  /// Label and weight bottoms get a zero gradient if they are asked for one.
  void ZeroDiff(Blob<Dtype>* bottom) const;
  /// The key of a forward's random draws, from Caffe's generator.
  static uint64_t DrawKey();
};

}  // namespace caffe

#endif  // CAFFE_METRIC_LOSS_LAYER_HPP_
