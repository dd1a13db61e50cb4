#ifndef CAFFE_METRIC_PAIRS_HPP_
#define CAFFE_METRIC_PAIRS_HPP_

#include "caffe_metric/macros.hpp"

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

// Those of one anchor of class `label`, whose row of n measures is d. The
// anchor is row `self` of them, or no row where self is -1.
template <typename T, typename L>
inline PairSums pair_sums(int self, int n, const T* d, L label,
                          const L* labels) {
  double of_all = 0;
  double of_same = 0;
  int same = 0;
  for (int j = 0; j < n; ++j) {
    const bool is_same = labels[j] == label;
    of_all += d[j];
    of_same += is_same ? d[j] : T(0);
    same += is_same;
  }
  if (self >= 0) {
    of_all -= d[self];
    of_same -= d[self];
    --same;
    --n;
  }
  const PairSums sums = {static_cast<double>(same),
                         static_cast<double>(n - same), of_same,
                         of_all - of_same};
  return sums;
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_PAIRS_HPP_
