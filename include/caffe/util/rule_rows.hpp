#ifndef CAFFE_UTIL_RULE_ROWS_HPP_
#define CAFFE_UTIL_RULE_ROWS_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/util/device_alternate.hpp"
#include "caffe/util/parallel_rows.hpp"
#include "caffe_metric/batch_rows.hpp"
#include "caffe_metric/gram.hpp"
#include "caffe_metric/labels.hpp"
#include "caffe_metric/pairs.hpp"

namespace caffe {

/// The anchors of a batch and what they meet: anchor i is column i where
/// `among` holds, and then does not meet itself.
template <typename Dtype>
struct BatchRows {
  int anchors, columns;
  bool among;
  const Dtype* anchor_labels;
  const Dtype* labels;  // of the columns

  // On the GPU only: the anchors' rows, where they stand by themselves, else
  // NULL; what rows of v still need to be measures; what is to be seen in the
  // rows that meet; and whether a pair's derivatives are made by both of its
  // anchors at once, with the sums of their rows, if not NULL.
  const Dtype* ahead;
  caffe_metric::GramRows<Dtype> gram;
  caffe_metric::RowCheck<Dtype> check;
  bool both;
  Dtype* sums;
};

/**
 * @brief A loss at work on strips of the measures of a batch: the anchors
 *        [begin, end), a row each. BatchSweep calls it.
 */
template <typename Dtype>
class RuleRows {
 public:
  virtual ~RuleRows() {}
  virtual caffe_metric::Metric<Dtype> metric() const = 0;
  virtual caffe_metric::Reduction reduction() const = 0;
  /// Whether all anchors are folded before the first of them has its loss.
  virtual bool two_sweeps() const { return false; }
  /// Whether the derivatives have room of their own.
  virtual bool apart() const { return false; }
  /// Whether all anchors have to be one strip.
  virtual bool whole() const { return false; }

  /// Folds the rows to states, and adds up their pairs.
  virtual void Fold_cpu(const BatchRows<Dtype>& batch, int begin, int end,
                        const Dtype* v) = 0;
  /// All rows are folded.
  virtual void Meet_cpu(const BatchRows<Dtype>& batch) = 0;
  /// The anchors' losses, of the measures d; with `write`, v becomes the
  /// derivatives or, where v is d, gram_weight of them.
  virtual void Slope_cpu(const BatchRows<Dtype>& batch, int begin, int end,
                         bool write, const Dtype* d, Dtype* v) = 0;
  /// The same on the GPU, where v is products until somebody reads a row
  /// (GramRows), and where all anchors may be folded once or more before the
  /// first is sloped; Meet comes after the first time, and the last time leaves
  /// the losses. A rule that need not fold them does all in Slope.
  virtual int fold_sweeps(bool both) const = 0;
  /// Whether Slope can make a pair's derivatives by both of its anchors.
  virtual bool both_sides() const = 0;
  virtual void Fold_gpu(int sweep, const BatchRows<Dtype>& batch, int begin,
                        int end, Dtype* v) = 0;
  virtual void Meet_gpu(const BatchRows<Dtype>& batch) = 0;
  virtual void Slope_gpu(const BatchRows<Dtype>& batch, int begin, int end,
                         bool write, Dtype* d, Dtype* v) = 0;

  void Start(int anchors) {
    pairs_.Reshape(anchors, kPairSums, 1, 1);
    losses_.Reshape(anchors, 2, 1, 1);
  }
  static const int kPairSums = sizeof(caffe_metric::PairSums) / sizeof(double);
  /// (anchors x 4): PairSums.
  Blob<double>* pairs() { return &pairs_; }
  /// (anchors x 2): the loss, and 1 where it is > 0.
  Blob<double>* losses() { return &losses_; }

 private:
  Blob<double> pairs_;
  Blob<double> losses_;
};

/// A rule of include/caffe_metric/batch_rule.hpp.
template <typename Dtype, typename Rule>
class RowsOf : public RuleRows<Dtype> {
 public:
  explicit RowsOf(const Rule& rule) : rule_(rule), met_(rule) {}
  virtual caffe_metric::Metric<Dtype> metric() const {
    const caffe_metric::Metric<Dtype> metric = {rule_.measure(), 0, 0};
    return metric;
  }
  virtual caffe_metric::Reduction reduction() const { return Rule::kReduction; }
  virtual bool two_sweeps() const {
    return Rule::kMeetsBatch || Rule::kPartners;
  }
  virtual void Fold_cpu(const BatchRows<Dtype>& batch, int begin, int end,
                        const Dtype* v) {
    states_.resize(batch.anchors);
    State* states = states_.data();
    caffe_metric::PairSums* pairs = reinterpret_cast<caffe_metric::PairSums*>(
        this->pairs()->mutable_cpu_data());
    ParallelRows(end - begin, kGrain, [=](int from, int to) {
      for (int i = from; i < to; ++i) {
        const caffe_metric::AnchorRow<Dtype> row = Row(batch, begin + i);
        const Dtype* own = v + static_cast<size_t>(i) * batch.columns;
        pairs[begin + i] = caffe_metric::pair_sums(row.self, row.n, own,
                                                   row.label, row.labels);
        states[begin + i] = caffe_metric::fold_row(rule_, row, own);
      }
    });
  }
  virtual void Meet_cpu(const BatchRows<Dtype>& batch) {
    met_ = rule_;
    caffe_metric::meet_batch(batch.anchors, states_.data(), &met_);
  }
  virtual void Slope_cpu(const BatchRows<Dtype>& batch, int begin, int end,
                         bool write, const Dtype*, Dtype* v) {
    const State* states = states_.data();
    double* losses = this->losses()->mutable_cpu_data();
    ParallelRows(end - begin, kGrain, [=](int from, int to) {
      for (int i = from; i < to; ++i) {
        const double loss = caffe_metric::slope_row(
            met_, Row(batch, begin + i), write, states, states[begin + i],
            v + static_cast<size_t>(i) * batch.columns);
        losses[2 * (begin + i)] = loss;
        losses[2 * (begin + i) + 1] = loss > 0;
      }
    });
  }
  virtual int fold_sweeps(bool both) const {
    return Rule::kPartners ? 2 : Rule::kMeetsBatch || both ? 1 : 0;
  }
  virtual bool both_sides() const { return true; }
#ifdef CPU_ONLY
  virtual void Fold_gpu(int, const BatchRows<Dtype>&, int, int, Dtype*) {
    NO_GPU;
  }
  virtual void Meet_gpu(const BatchRows<Dtype>&) { NO_GPU; }
  virtual void Slope_gpu(const BatchRows<Dtype>&, int, int, bool, Dtype*,
                         Dtype*) {
    NO_GPU;
  }
#else
  // In rule_rows_gpu.hpp, for .cu files.
  virtual void Fold_gpu(int sweep, const BatchRows<Dtype>& batch, int begin,
                        int end, Dtype* v);
  virtual void Meet_gpu(const BatchRows<Dtype>& batch);
  virtual void Slope_gpu(const BatchRows<Dtype>& batch, int begin, int end,
                         bool write, Dtype* d, Dtype* v);
#endif

 private:
  typedef typename Rule::State State;
  static const int kGrain = 16;  // anchors that a thread takes at once

  static caffe_metric::AnchorRow<Dtype> Row(const BatchRows<Dtype>& batch,
                                            int anchor) {
    const caffe_metric::AnchorRow<Dtype> row = {
        batch.among ? anchor : -1, batch.columns, batch.anchor_labels[anchor],
        batch.labels};
    return row;
  }

  Rule rule_;
  Rule met_;  // knows the batch
  std::vector<State> states_;
  Blob<double> gpu_states_;   // the same, by their bytes
  Blob<double> next_states_;  // and once they have met their partners
  Blob<double> totals_;       // BatchTotals
};

}  // namespace caffe

#endif  // CAFFE_UTIL_RULE_ROWS_HPP_
