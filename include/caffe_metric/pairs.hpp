#ifndef CAFFE_METRIC_PAIRS_HPP_
#define CAFFE_METRIC_PAIRS_HPP_

#include "caffe_metric/macros.hpp"
#include "caffe_metric/vector_ops.hpp"

namespace caffe_metric {

// What the pairs (anchor, other row) of a batch add up to: how many are of one
// class and how many of two, and the sums of what is measured between them.
struct PairSums {
  double same, others;
  double of_same, of_others;

  double mean_same() const { return same > 0 ? of_same / same : 0; }
  double mean_others() const { return others > 0 ? of_others / others : 0; }
  CAFFE_METRIC_HD bool is_finite() const {
    const double sum = of_same + of_others;
    return sum - sum == 0;
  }
  void add(const PairSums& more) {
    same += more.same;
    others += more.others;
    of_same += more.of_same;
    of_others += more.of_others;
  }
};

// Those of one anchor whose row of n measures is d, `same` of them of its
// class, which add up to of_same. The anchor is row `self` of them, or no row
// where self is -1.
template <typename T>
inline PairSums pair_sums_of(int self, int n, const T* d, int same,
                             double of_same) {
  const double of_others = total(n, d) - of_same;
  const double others = n - same;
  if (self >= 0) {
    of_same -= d[self];
    --same;
  }
  const PairSums sums = {static_cast<double>(same), others, of_same, of_others};
  return sums;
}

// The same of an anchor of class `label`, of the rows' labels.
template <typename T, typename L>
inline PairSums pair_sums(int self, int n, const T* d, L label,
                          const L* labels) {
  double of_same = 0;
  int same = 0;
  for (int j = 0; j < n; ++j) {
    if (labels[j] == label) {
      of_same += d[j];
      ++same;
    }
  }
  return pair_sums_of(self, n, d, same, of_same);
}

// The same of the columns of its class.
template <typename T>
inline PairSums pair_sums(int self, int n, const T* d, const int* same,
                          int count) {
  double even = 0, odd = 0;
  int k = 0;
  for (; k + 2 <= count; k += 2) {
    even += d[same[k]];
    odd += d[same[k + 1]];
  }
  if (k < count) {
    even += d[same[k]];
  }
  return pair_sums_of(self, n, d, count, even + odd);
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_PAIRS_HPP_
