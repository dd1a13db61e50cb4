#ifndef CAFFE_UTIL_BATCH_DISTANCES_HPP_
#define CAFFE_UTIL_BATCH_DISTANCES_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe_metric/distance.hpp"
#include "caffe_metric/gram.hpp"
#include "caffe_metric/labels.hpp"
#include "caffe_metric/row_groups.hpp"

namespace caffe {

/**
 * @brief The distances of a batch, a strip of its rows at a time, by a matrix
 *        product (see include/caffe_metric/gram.hpp), and the gradient of what
 *        is made of them.
 *
 * Of a matrix x @f$ (R \times D) @f$ the rows [0, A) are anchors, and they meet
 * the rows [first, R), the columns. For the batch itself first = 0 and A = R.
 *
 *     distances.Reshape(...);
 *     distances.Prepare_cpu(x);
 *     distances.StartGradient_cpu();
 *     for each strip [begin, end) of the anchors:
 *       d = distances.Strip_cpu(begin, end)
 *       write the derivatives by d into distances.slopes_cpu()
 *       distances.AddGradient_cpu(begin, end)
 *     distances.FinishGradient_cpu();   // gradient() is there
 */
template <typename Dtype>
class BatchDistances {
 public:
  BatchDistances() : metric_(), anchors_(0) {}
  void set_metric(const caffe_metric::Metric<Dtype>& metric) {
    metric_ = metric;
  }
  /// `receiving` columns, the first, get a gradient; the others are constants.
  /// With `apart` the derivatives have room of their own. Without, they take
  /// the distances', and are gram_weight of the derivatives. With `whole` there
  /// is one strip.
  void Reshape(int anchors, int first, int rows, int dim, int receiving,
               bool apart, bool whole);
  /// The same, for a batch of `num` rows.
  void Reshape(int num, int dim, bool apart, bool whole) {
    Reshape(num, 0, num, dim, num, apart, whole);
  }
  /// Anchors a strip.
  int strip() const { return strip_; }
  int columns() const { return rows_ - first_; }

  void Prepare_cpu(const Dtype* x);
  Dtype* Strip_cpu(int begin, int end);
  Dtype* slopes_cpu() { return slopes()->mutable_cpu_data(); }
  void StartGradient_cpu();
  /// Overwrites the derivatives.
  void AddGradient_cpu(int begin, int end);
  void FinishGradient_cpu();

  // The same on the GPU, but that a strip is rows of the Gram matrix still,
  // which GramRows_gpu tells how to read, and that the derivatives are always
  // gram_weight of them. Prepare_gpu looks at the rows, too. With `both` the
  // derivatives by a pair are by both of its anchors, and the sums of their
  // rows, where part_sums_gpu is not NULL, come in parts (slope_pairs). Of
  // cosines the rows before `first` may stand by themselves: ahead.
  void Prepare_gpu(const Dtype* ahead, const Dtype* x,
                   const caffe_metric::RowCheck<Dtype>& check);
  Dtype* Strip_gpu(int begin, int end);
  caffe_metric::GramRows<Dtype> GramRows_gpu();
  Dtype* slopes_gpu() { return slopes()->mutable_gpu_data(); }
  Dtype* part_sums_gpu();
  void StartGradient_gpu(bool both);
  void AddGradient_gpu(int begin, int end, bool both);
  /// The gradient by x's rows [first, first + rows), times the loss's diff and
  /// `scale`, is written to dx or, with `add`, added there.
  void FinishGradient_gpu(int first, int rows, const Dtype* loss_diff,
                          Dtype scale, bool add, Dtype* dx) const;

  /// @f$ (R \times D) @f$, of the sum of all losses; on the CPU.
  const Blob<Dtype>& gradient() const { return gradient_; }

 private:
  Blob<Dtype>* slopes() { return apart_ ? &slopes_ : &distances_; }
  const Dtype* u_cpu() const { return by_gram() ? u_.cpu_data() : x_; }
  bool by_gram() const { return metric_.distance != caffe_metric::LP; }
  /// Whether the strip is a symmetric matrix, as of a batch in one strip.
  bool symmetric(int anchors) const { return first_ == 0 && anchors == rows_; }
  /// Whether no anchor is a column.
  bool anchors_apart() const { return first_ >= anchors_; }
  /// Products of the prepared rows, on the diagonal of a batch and above it.
  void UpperGram(int n, Dtype* gram);
  /// Makes distances of the products in rows of a strip; `upper`: of those on
  /// the diagonal and above it.
  void MeasureSquares(int begin, int rows, bool upper, Dtype* d);
  /// Distances of a row of squared ones: what is open, `open` of them, is
  /// measured.
  void FinishSquares(int begin, int row, bool upper, int open, Dtype* d) const;
  /// Distances of rows of a strip with many close ones, of squared ones, by
  /// groups. Does nothing where the rows fall into none.
  bool MeasureClose(int begin, const vector<int>& rows, bool upper, Dtype* d);
  /// The same of rows of one group; `room` is scratch.
  void MeasureGroup(const caffe_metric::RowGroupPart& part, int begin,
                    bool upper, vector<Dtype>* room, Dtype* d) const;
  /// On the GPU: what the columns of a strip get of its derivatives.
  void AddTransposedGpu(int begin, int end);
  /// Adds what a few derivatives that are not 0 amount to.
  void AddSparse(int begin, int end, const Dtype* v);
  /// Groups of a batch in one strip, each row in one of them, or none: those of
  /// the close rows, and those of `all` derivatives that are not 0.
  vector<caffe_metric::RowGroup> CloseGroups() const;
  vector<caffe_metric::RowGroup> WeightGroups(size_t all, const Dtype* v) const;
  /// Counts each row's derivatives that are not 0, and gathers those between
  /// rows of a group; whether these are all.
  bool GatherGroups(const vector<caffe_metric::RowGroup>& groups,
                    const Dtype* v);
  /// Adds what the gathered derivatives amount to.
  void AddGroups(const vector<caffe_metric::RowGroup>& groups);

  caffe_metric::Metric<Dtype> metric_;
  int anchors_, first_, rows_, dim_, receiving_, strip_;
  bool apart_;
  const Dtype* x_;
  Blob<Dtype> u_;                 // (R x D): the prepared rows
  Blob<Dtype> squares_;           // (R): ||u||^2
  Blob<Dtype> lengths_;           // (R): ||x||
  Blob<Dtype> distances_;         // (strip x columns)
  Blob<Dtype> slopes_;            // (strip x columns), if apart
  Blob<Dtype> receiving_slopes_;  // (strip x receiving), GPU, if not all do
  Blob<Dtype> gradient_;          // (R x D)
  Blob<Dtype> row_sums_;          // (R): of the symmetrised weights
  Blob<Dtype> part_sums_;         // (parts x columns): the same, on the GPU
  Blob<double> means_;            // (D): of the features, on the GPU
  Blob<double> factors_;          // (R): 1 / ||x||, or 0, on the GPU
  Blob<int> close_;               // (R): see GramRows, on the GPU
  vector<int> open_in_row_;       // distances of the strip, see gram.hpp
  vector<int> weights_in_row_;    // that are not 0, of the strip
  vector<caffe_metric::RowGroup> close_groups_;  // of the strip's close rows
  vector<vector<Dtype>> rooms_;  // scratch of each thread, for groups of rows
};

}  // namespace caffe

#endif  // CAFFE_UTIL_BATCH_DISTANCES_HPP_
