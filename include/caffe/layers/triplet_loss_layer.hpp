#ifndef CAFFE_TRIPLET_LOSS_LAYER_HPP_
#define CAFFE_TRIPLET_LOSS_LAYER_HPP_

#include <stdint.h>

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/layers/metric_loss_layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe_metric/distance.hpp"
#include "caffe_metric/triplet_all.hpp"
#include "caffe_metric/triplet_mining.hpp"
#include "caffe_metric/triplet_rule.hpp"

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
 *   -# the fraction of triplets with @f$ \ell > 0 @f$
 *   -# the mean of @f$ d_{ap} @f$
 *   -# the mean of @f$ d_{an} @f$
 */
template <typename Dtype>
class TripletLossLayer : public MetricLossLayer<Dtype> {
 public:
  explicit TripletLossLayer(const LayerParameter& param)
      : MetricLossLayer<Dtype>(param), triplet_capacity_(0) {}
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

  /// A triplet whose loss was added, with what backward needs of it.
  struct Term {
    caffe_metric::Triplet rows;
    Dtype slope_ap, slope_an;  // of the loss, times the triplet's weight
    bool swapped;              // d_an is the distance of p and n
  };

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

  /// Whether every triplet of the batch meets: then nothing is listed.
  bool dense() const {
    return layout_ == MINED && mining_ == caffe_metric::ALL;
  }
  /// The triplets that the bottoms' layout names.
  void ListTriplets();
  /// The triplets that mining finds.
  void MineTriplets(const vector<Blob<Dtype>*>& bottom);
  /// Adds up the losses of triplets_ and fills terms_.
  void AddListed(const vector<Blob<Dtype>*>& bottom,
                 caffe_metric::TripletStats* stats);
  /// Adds up all losses of a mined batch and, if asked, fills gradient_.
  void AddAll(const vector<Blob<Dtype>*>& bottom, bool with_gradient,
              caffe_metric::TripletStats* stats);
  void AddStripGradient(int begin, int end, const Dtype* x);
  /// Rows [begin, end) of the batch's distances, into distances_.
  void StripDistances(int begin, int end, const Dtype* x);
  /// Prepares the rows of a batch for its Gram matrix.
  void PrepareRows(const Dtype* x, int strip);
  // The same on the GPU. The report adds up there, and is copied once.
  void CheckInputGpu(const vector<Blob<Dtype>*>& bottom);
  void MineTripletsGpu(const vector<Blob<Dtype>*>& bottom, uint64_t key);
  void AddListedGpu(const vector<Blob<Dtype>*>& bottom);
  void AddAllGpu(const vector<Blob<Dtype>*>& bottom, bool with_gradient);
  void AddStripGradientGpu(int begin, int rows, const Dtype* x);
  void StripDistancesGpu(int begin, int rows, const Dtype* x);
  void PrepareRowsGpu(const Dtype* x, int strip);
  /// Writes the tops and the normaliser.
  void Report(const caffe_metric::TripletStats& stats,
              const vector<Blob<Dtype>*>& top);

  Layout layout_;
  caffe_metric::Mining mining_;
  caffe_metric::Metric<Dtype> metric_;
  caffe_metric::TripletRule<Dtype> rule_;
  bool swap_, use_pair_;
  int group_size_;       // rows a group, in the layout GROUPS
  int feature_bottoms_;  // bottoms that are features
  int num_, dim_;

  vector<caffe_metric::Triplet> triplets_;  // listed
  vector<Term> terms_;                      // cached for backward pass
  Dtype normalizer_;                        // cached for backward pass
  bool has_gradient_;                       // gradient_ is of this forward
  Blob<Dtype> gradient_;                    // (N x D): of the sum of all losses
  Blob<Dtype> prepared_;   // (N x D): see include/caffe_metric/gram.hpp
  Blob<Dtype> row_norms_;  // (N)
  Blob<Dtype> row_sums_;   // (N)
  Blob<Dtype> distances_;  // (strip x N)
  Blob<Dtype> slopes_;     // (strip x N): derivatives by the distances

  // GPU only.
  int triplet_capacity_;         // of the two blobs that follow
  Blob<int> mined_;              // (capacity x 3): triplets_
  Blob<Dtype> cached_terms_;     // terms_
  Blob<int> pair_offsets_;       // (N + 1): an anchor's first in mined_
  Blob<double> means_;           // (D): of the features
  Blob<Dtype> thresholds_;       // scratch of ALL with HINGE: d_ap + margin,
  Blob<double> threshold_sums_;  // their sums,
  Blob<int> threshold_counts_;   // and the negatives between them
  Blob<double> bad_rows_;        // (N): rows that are no valid input
  Blob<double> row_reports_;     // what each block adds to the report
  Blob<double> report_;          // which alone is copied to the host
};

}  // namespace caffe

#endif  // CAFFE_TRIPLET_LOSS_LAYER_HPP_
