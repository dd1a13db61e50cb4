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

  /// Folds the rows to states, and adds up their pairs. Where one sweep is
  /// enough, what is left in v is for Slope alone.
  virtual void Fold_cpu(const BatchRows<Dtype>& batch, int begin, int end,
                        Dtype* v) = 0;
  /// All rows are folded.
  virtual void Meet_cpu(const BatchRows<Dtype>& batch) = 0;
  /// The anchors' losses, of the measures d; with `write`, v becomes the
  /// derivatives or, where v is d, gram_weight of them.
  virtual void Slope_cpu(const BatchRows<Dtype>& batch, int begin, int end,
                         bool write, const Dtype* d, Dtype* v) = 0;
  /// Both, where one sweep is enough.
  virtual void FoldAndSlope_cpu(const BatchRows<Dtype>& batch, int begin,
                                int end, bool write, Dtype* d, Dtype* v) {
    Fold_cpu(batch, begin, end, d);
    Slope_cpu(batch, begin, end, write, d, v);
  }
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
                        Dtype* v) {
    Begin(batch, begin);
    PairSums* pairs = MutablePairs();
    ForRows(batch, begin, end, v, [=](int i, Dtype* row, vector<Dtype>* room) {
      FoldRow(batch, i, row, pairs, room);
    });
  }
  virtual void Meet_cpu(const BatchRows<Dtype>& batch) {
    met_ = rule_;
    caffe_metric::meet_batch(batch.anchors, states_.data(), &met_);
  }
  virtual void Slope_cpu(const BatchRows<Dtype>& batch, int begin, int end,
                         bool write, const Dtype*, Dtype* v) {
    double* losses = this->losses()->mutable_cpu_data();
    ForRows(batch, begin, end, v, [=](int i, Dtype* row, vector<Dtype>* room) {
      SlopeRow(batch, i, write, row, losses, room);
    });
  }
  // A row stays in the cache between the two.
  virtual void FoldAndSlope_cpu(const BatchRows<Dtype>& batch, int begin,
                                int end, bool write, Dtype*, Dtype* v) {
    Begin(batch, begin);
    PairSums* pairs = MutablePairs();
    double* losses = this->losses()->mutable_cpu_data();
    ForRows(batch, begin, end, v, [=](int i, Dtype* row, vector<Dtype>* room) {
      FoldRow(batch, i, row, pairs, room);
      SlopeRow(batch, i, write, row, losses, room);
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
  typedef caffe_metric::PairSums PairSums;
  static const int kGrain = 16;  // anchors that a thread takes at once

  void Begin(const BatchRows<Dtype>& batch, int begin) {
    if (begin == 0) {
      columns_.sort(batch.columns, batch.labels);
    }
    states_.resize(batch.anchors);
  }
  PairSums* MutablePairs() {
    return reinterpret_cast<PairSums*>(this->pairs()->mutable_cpu_data());
  }
  // Calls body(anchor, its row of v, scratch) for the anchors [begin, end).
  template <typename Body>
  static void ForRows(const BatchRows<Dtype>& batch, int begin, int end,
                      Dtype* v, const Body& body) {
    const size_t columns = batch.columns;
    ParallelRows(end - begin, kGrain, [=](int from, int to) {
      vector<Dtype> room;
      for (int i = from; i < to; ++i) {
        body(begin + i, v + i * columns, &room);
      }
    });
  }
  void FoldRow(const BatchRows<Dtype>& batch, int anchor, Dtype* v,
               PairSums* pairs, vector<Dtype>* room) {
    const caffe_metric::AnchorRow<Dtype> row = Row(batch, anchor);
    states_[anchor] =
        caffe_metric::fold_row(rule_, row, v, room, &pairs[anchor]);
  }
  void SlopeRow(const BatchRows<Dtype>& batch, int anchor, bool write, Dtype* v,
                double* losses, vector<Dtype>* room) const {
    const double loss =
        caffe_metric::slope_row(met_, Row(batch, anchor), write, states_.data(),
                                states_[anchor], v, room);
    losses[2 * anchor] = loss;
    losses[2 * anchor + 1] = loss > 0;
  }
  caffe_metric::AnchorRow<Dtype> Row(const BatchRows<Dtype>& batch,
                                     int anchor) const {
    return caffe_metric::anchor_row(batch.among ? anchor : -1, batch.columns,
                                    batch.anchor_labels[anchor], batch.labels,
                                    columns_);
  }

  Rule rule_;
  Rule met_;  // knows the batch
  caffe_metric::ColumnsByClass<Dtype> columns_;
  std::vector<State> states_;
  Blob<double> gpu_states_;   // the same, by their bytes
  Blob<double> next_states_;  // and once they have met their partners
  Blob<double> totals_;       // BatchTotals
};

}  // namespace caffe

#endif  // CAFFE_UTIL_RULE_ROWS_HPP_
