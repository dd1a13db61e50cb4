#ifndef CAFFE_METRIC_SOFTMAX_RULE_HPP_
#define CAFFE_METRIC_SOFTMAX_RULE_HPP_

#include <cmath>

#include "caffe_metric/macros.hpp"
#include "caffe_metric/vector_ops.hpp"

// Softmax and cross entropy of a row of n logits z that comes in pieces, in any
// order (online softmax: Milakov & Gimelshein 2018, algorithm 3). With y the
// target and s the label smoothing (Szegedy et al. 2016, section 7),
//
//   loss = ln sum_j e^z_j - (1 - s) z_y - s / n sum_j z_j,
//   d loss / d z_j = e^z_j / sum - (1 - s) [j = y] - s / n.

namespace caffe_metric {

// What is known of a row's logits. before and after are the greatest of the
// classes below and above the target.
struct SoftmaxRow {
  double before, after;
  double shift;  // the greatest of all
  double sum;    // of exp(z - shift)
  double total;  // of z
};

CAFFE_METRIC_HD SoftmaxRow softmax_start() {
  const double least = -HUGE_VAL;
  const SoftmaxRow row = {least, least, least, 0, 0};
  return row;
}

// What a sum over exp(z - shift) is multiplied by if the shift becomes `to`.
CAFFE_METRIC_HD double softmax_rescale(double shift, double to) {
  return shift == to ? 1. : std::exp(shift - to);
}

CAFFE_METRIC_HD void softmax_merge(const SoftmaxRow& piece, SoftmaxRow* row) {
  const double shift = larger(piece.shift, row->shift);
  row->sum = row->sum * softmax_rescale(row->shift, shift) +
             piece.sum * softmax_rescale(piece.shift, shift);
  row->shift = shift;
  row->total += piece.total;
  row->before = larger(piece.before, row->before);
  row->after = larger(piece.after, row->after);
}

CAFFE_METRIC_HD double softmax_loss(const SoftmaxRow& row, double target,
                                    double smoothing, int classes) {
  return std::log(row.sum) - (1 - smoothing) * (target - row.shift) -
         smoothing * (row.total / classes - row.shift);
}

// d loss / d z_j times `weight`, as factor * exp(z_j - shift) - offset, less
// target for j = y.
template <typename T>
struct SoftmaxGradient {
  T factor, offset, target;
};

template <typename T>
CAFFE_METRIC_HD SoftmaxGradient<T> softmax_gradient(const SoftmaxRow& row,
                                                    double shift, double weight,
                                                    double smoothing,
                                                    int classes) {
  const SoftmaxGradient<T> gradient = {
      static_cast<T>(weight * softmax_rescale(shift, row.shift) / row.sum),
      static_cast<T>(weight * smoothing / classes),
      static_cast<T>(weight * (1 - smoothing))};
  return gradient;
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_SOFTMAX_RULE_HPP_
