#ifndef CAFFE_UTIL_TRIPLET_ROWS_HPP_
#define CAFFE_UTIL_TRIPLET_ROWS_HPP_

#include <stdint.h>

#include "caffe/blob.hpp"
#include "caffe/util/rule_rows.hpp"
#include "caffe_metric/triplet_listed.hpp"
#include "caffe_metric/triplet_mining.hpp"

namespace caffe {

/**
 * @brief The triplets of a batch that are mined in it, an anchor's row of
 *        distances at a time: see include/caffe_metric/triplet_anchor.hpp.
 *
 * A row does not fold to a small state: ALL sorts the anchor's thresholds, and
 * the other kinds choose among its rows. So losses and derivatives are made in
 * one go.
 */
template <typename Dtype>
class TripletRows : public RuleRows<Dtype> {
 public:
  TripletRows(const caffe_metric::TripletOptions<Dtype>& options,
              caffe_metric::Mining mining)
      : options_(options), mining_(mining), key_(0) {}
  /// Of the random draws of the next sweeps.
  void set_key(uint64_t key) { key_ = key; }

  virtual caffe_metric::Metric<Dtype> metric() const { return options_.metric; }
  /// The layer's own.
  virtual caffe_metric::Reduction reduction() const {
    return caffe_metric::AS_IS;
  }
  /// On the GPU sorting leaves the derivatives where the distances were.
  virtual bool apart() const {
    return Caffe::mode() == Caffe::CPU || !BySorting() ||
           options_.metric.distance == caffe_metric::LP;
  }
  /// swap meets rows of other anchors: it needs all of them at once.
  virtual bool whole() const { return options_.swap; }

  virtual void Fold_cpu(const BatchRows<Dtype>&, int, int, Dtype*) {}
  virtual void Meet_cpu(const BatchRows<Dtype>&) {}
  virtual void Slope_cpu(const BatchRows<Dtype>& batch, int begin, int end,
                         bool write, const Dtype* d, Dtype* slopes);
  virtual int fold_sweeps(bool both) const { return 0; }
  virtual bool both_sides() const { return false; }
  virtual void Fold_gpu(int, const BatchRows<Dtype>&, int, int, Dtype*) {}
  virtual void Meet_gpu(const BatchRows<Dtype>&) {}
  virtual void Slope_gpu(const BatchRows<Dtype>& batch, int begin, int end,
                         bool write, Dtype* d, Dtype* slopes);

  /// (N x 3): of each anchor's triplets the loss, their number, and how many
  /// have a loss > 0.
  Blob<double>* sums() { return &sums_; }

 private:
  /// Whether the loss over all triplets is made by sorting.
  bool BySorting() const {
    return mining_ == caffe_metric::ALL && !options_.swap &&
           options_.rule.type == caffe_metric::HINGE;
  }

  caffe_metric::TripletOptions<Dtype> options_;
  caffe_metric::Mining mining_;
  uint64_t key_;
  Blob<double> sums_;

  // GPU only: scratch of ALL with HINGE,
  Blob<Dtype> thresholds_;       // d_ap + margin,
  Blob<double> threshold_sums_;  // their sums,
  Blob<int> threshold_counts_;   // and the negatives between them
};

}  // namespace caffe

#endif  // CAFFE_UTIL_TRIPLET_ROWS_HPP_
