#ifndef CAFFE_TRIPLET_LOSS_LAYER_HPP_
#define CAFFE_TRIPLET_LOSS_LAYER_HPP_

#include <stdint.h>

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/layers/metric_loss_layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/util/batch_sweep.hpp"
#include "caffe/util/gpu_report.hpp"
#include "caffe/util/triplet_rows.hpp"
#include "caffe_metric/pairs.hpp"
#include "caffe_metric/triplet_listed.hpp"
#include "caffe_metric/triplet_mining.hpp"

namespace caffe {

/**
 * @brief Pulls an anchor and its positive together and pushes a negative away,
 *        @f$ E = \frac{1}{Z} \sum \ell(d_{ap}, d_{an}) @f$, for HINGE
 *        @f$ \ell = \max(0, d_{ap} - d_{an} + margin) @f$. Losses: see
 *        include/caffe_metric/triplet_rule.hpp, distances: distance.hpp,
 *        mining: triplet_mining.hpp.
 *
 * @param bottom input Blob vector (length 1 to 4), which chooses the layout
 *   -# 1: groups of 2 + num_negatives rows @f$ (N \times D) @f$, an anchor, a
 *      positive, negatives; Z = 2 groups
 *   -# 2: features @f$ (N \times D) @f$ and labels @f$ (N) @f$: triplets are
 *      mined in the batch; Z = the number with @f$ \ell > 0 @f$, at least 1
 *   -# 3: anchors, positives, negatives @f$ (N \times D) @f$ each; Z = 2 N
 *   -# 4: the same and weights @f$ (N) @f$ that multiply the losses; Z = 2 N
 *   loss_param { normalization } replaces Z.
 * @param top output Blob vector (length 1 to 4), 0 axes each; only the first
 *        propagates
 *   -# the loss
 *   -# the fraction of triplets with @f$ \ell > 0 @f$; of a mined batch, the
 *      fraction of its pairs (a, p) that got one (HARDEST: of its anchors;
 *      ALL: of its triplets)
 *   -# the mean of @f$ d_{ap} @f$; of a mined batch, of the distances of all
 *      pairs of one class
 *   -# the mean of @f$ d_{an} @f$; of a mined batch, of the distances of all
 *      pairs of two classes
 */
template <typename Dtype>
class TripletLossLayer : public MetricLossLayer<Dtype> {
 public:
  explicit TripletLossLayer(const LayerParameter& param)
      : MetricLossLayer<Dtype>(param) {}
  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom,
                          const vector<Blob<Dtype>*>& top);
  virtual void Reshape(const vector<Blob<Dtype>*>& bottom,
                       const vector<Blob<Dtype>*>& top);

  virtual inline const char* type() const { return "TripletLoss"; }
  virtual inline int MinBottomBlobs() const { return 1; }
  virtual inline int MaxBottomBlobs() const { return 4; }
  virtual inline int MaxTopBlobs() const { return 4; }
  /// Feature bottoms allow it; labels and weights do not.
  virtual inline bool AllowForceBackward(const int bottom_index) const {
    return bottom_index < feature_bottoms_;
  }

 protected:
  enum Layout { GROUPS = 1, MINED = 2, ROWS = 3, WEIGHTED_ROWS = 4 };

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

  /// Where the rows of a listed triplet lie: of three bottoms its row, of one
  /// a group of rows.
  struct Listed {
    const Dtype* x[3];  // anchors, positives, negatives
    Dtype* dx[3];
    int groups, negatives, group_rows;
  };
  Listed ListedRows(const vector<Blob<Dtype>*>& bottom) const;
  /// The losses of the triplets that the bottoms name, and terms_.
  void AddListed(const vector<Blob<Dtype>*>& bottom,
                 caffe_metric::TripletStats* stats);
  void AddListedGradient(Dtype scale, const vector<bool>& propagate_down,
                         const vector<Blob<Dtype>*>& bottom);
  /// The anchors of a mined batch, which are its rows.
  BatchRows<Dtype> MinedRows(const Dtype* labels) const;
  /// Ends the process where a distance is not finite, or does nothing.
  void CheckDistances(const vector<Blob<Dtype>*>& bottom) const;
  /// The key of this forward's draws: of Caffe's generator in TRAIN only, so
  /// that a test between two iterations does not change a training.
  uint64_t MiningKey() const;
  // On the GPU the sums go to report_, and are copied once.
  void AddListedGpu(const vector<Blob<Dtype>*>& bottom);
  /// Writes the tops and the normaliser.
  void Report(const caffe_metric::TripletStats& stats,
              const caffe_metric::PairSums& pairs,
              const vector<Blob<Dtype>*>& top);

  Layout layout_;
  caffe_metric::Mining mining_;
  caffe_metric::TripletOptions<Dtype> options_;
  int group_size_;       // rows a group, in the layout GROUPS
  int feature_bottoms_;  // bottoms that are features
  int num_, dim_;

  Dtype normalizer_;   // cached for backward pass
  Blob<Dtype> terms_;  // listed triplets' terms, cached for backward pass
  shared_ptr<TripletRows<Dtype>> mined_;  // the triplets of a mined batch
  BatchSweep<Dtype> sweep_;               // of it, with the gradient

  // GPU only.
  Blob<double> block_sums_;  // what each block adds to the report
  GpuReport<Dtype> report_;
};

}  // namespace caffe

#endif  // CAFFE_TRIPLET_LOSS_LAYER_HPP_
