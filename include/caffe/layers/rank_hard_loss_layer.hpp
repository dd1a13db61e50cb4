#ifndef CAFFE_RANK_HARD_LOSS_LAYER_HPP_
#define CAFFE_RANK_HARD_LOSS_LAYER_HPP_

#include <stdint.h>

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/layers/metric_loss_layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/util/gpu_report.hpp"

namespace caffe {

/**
 * @brief Ranks a positive before hard negatives of the batch. With
 *        @f$ s(u,v) = -u \cdot v @f$, anchors @f$ i = 0, P, 2P ... @f$
 *        (P = pair_size), positives @f$ p = i + 1 @f$ and negatives j drawn
 *        among the hardest and among all that violate the margin m,
 *        @f$ E = \frac{1}{Z} \sum_{i,j}
 *            \max(0, s(i,p) - s(i,j) + m) + \max(0, s(i,p) - s(p,j) + m) @f$,
 *        Z = 2 neg_num N / P, or what loss_param { normalization } asks for.
 *        Which j: see include/caffe_metric/rank_hard.hpp.
 *
 * @param bottom input Blob vector (length 2)
 *   -# @f$ (N \times D) @f$ the features, of length 1 each: put a Norm layer
 *      before this one. N is a multiple of P
 *   -# @f$ (N) @f$ the labels; the same for rows i and i + 1
 * @param top output Blob vector (length 1 or 2)
 *   -# the loss, 0 axes
 *   -# the fraction of the Z terms that are > 0, 0 axes; does not propagate
 */
template <typename Dtype>
class RankHardLossLayer : public MetricLossLayer<Dtype> {
 public:
  explicit RankHardLossLayer(const LayerParameter& param)
      : MetricLossLayer<Dtype>(param) {}
  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom,
                          const vector<Blob<Dtype>*>& top);
  virtual void Reshape(const vector<Blob<Dtype>*>& bottom,
                       const vector<Blob<Dtype>*>& top);

  virtual inline const char* type() const { return "RankHardLoss"; }
  virtual inline int ExactNumBottomBlobs() const { return 2; }
  virtual inline int MaxTopBlobs() const { return 2; }

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

  /// A negative that was taken, and which of its two hinges are > 0.
  struct Taken {
    int anchor, negative;
    bool by_anchor, by_positive;
  };

  /// What a group took, and the sum of its losses.
  struct GroupTaken {
    vector<Taken> negatives;
    double loss;
  };

  /// Ends the process where the features or labels are none, or rows i and
  /// i + 1 are of different classes.
  void CheckInput(const vector<Blob<Dtype>*>& bottom) const;
  void FailTooLarge() const;
  /// The key of this forward's draws: of Caffe's generator in TRAIN only, so
  /// that a test between two iterations does not change a training.
  uint64_t DrawingKey() const;
  void TakeNegatives(const Dtype* x, int anchor, const Dtype* products,
                     const vector<int>& negatives, GroupTaken* group) const;
  /// Adds columns [from, to) of the gradient of a negative's two hinges.
  void AddGradient(const Taken& taken, Dtype scale, int from, int to,
                   const Dtype* x, Dtype* dx) const;
  /// Writes the tops and the normaliser, of the sums over the batch.
  void Report(double loss, double selected, double active,
              const vector<Blob<Dtype>*>& top);

  RankParameter param_;
  int num_, dim_, group_num_;
  Blob<Dtype> anchors_;       // (strip x D): the anchors' rows, on the CPU
  Blob<Dtype> products_;      // (strip x N): their Gram matrix with all rows
  vector<GroupTaken> taken_;  // cached for backward pass
  Dtype normalizer_;          // cached for backward pass

  // GPU only.
  int max_taken_;         // negatives that an anchor can take
  Blob<int> taken_rows_;  // (groups x max_taken): taken_, cached for backward
  Blob<int> hinges_;      // (groups x max_taken): which of the two are > 0
  Blob<double> group_sums_;  // what each group adds to the report
  GpuReport<Dtype> report_;
};

}  // namespace caffe

#endif  // CAFFE_RANK_HARD_LOSS_LAYER_HPP_
