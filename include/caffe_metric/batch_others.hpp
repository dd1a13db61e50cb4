#ifndef CAFFE_METRIC_BATCH_OTHERS_HPP_
#define CAFFE_METRIC_BATCH_OTHERS_HPP_

#include <cmath>

#include "caffe_metric/batch_rule.hpp"
#include "caffe_metric/exponential.hpp"
#include "caffe_metric/vector_ops.hpp"

// What rules make of all rows of other classes at once, on the CPU: sums over a
// row by the processor's vectors. See batch_rule.hpp, kAtOnce.

namespace caffe_metric {

// ln sum_j e^x_j; e^(x - the greatest) goes to y, which may be x.
template <typename T>
inline LogSum<T> log_sum_of(int n, const T* x, T* y) {
  LogSum<T> sum;
  sum.greatest = greatest(n, x, T(-HUGE_VAL));
  sum.sum = exponentials(n, x, sum.greatest, y);
  return sum;
}

// v = factor * e / d, 0 where d is 0: gram_weight of slopes factor * e of
// distances. v may be d or e.
template <typename T>
inline void over_distances(int n, T factor, const T* e, const T* d, T* v) {
  typedef Packed<T> Pack;
  const typename Pack::Type zero = Pack::all(0), all = Pack::all(factor);
  int k = 0;
  for (; k + Pack::kSize <= n; k += Pack::kSize) {
    const typename Pack::Type own = Pack::load(d + k);
    Pack::store(
        Pack::if_greater(own, zero, all * Pack::load(e + k) / own, zero),
        v + k);
  }
  for (; k < n; ++k) {
    v[k] = d[k] > 0 ? factor * e[k] / d[k] : T(0);
  }
}

// The pairs with d < margin: their number, and the sum of (margin - d)^2.
template <typename T>
inline int sum_of_close(int n, T margin, const T* d, double* sum) {
  typedef Packed<T> Pack;
  const typename Pack::Type zero = Pack::all(0), one = Pack::all(1);
  const typename Pack::Type all = Pack::all(margin);
  typename Pack::Type count = zero, squares = zero;
  int k = 0;
  for (; k + Pack::kSize <= n; k += Pack::kSize) {
    const typename Pack::Type own = Pack::load(d + k);
    const typename Pack::Type under =
        Pack::if_greater(all, own, all - own, zero);
    squares += under * under;
    count += Pack::if_greater(all, own, one, zero);
  }
  int close = static_cast<int>(Pack::sum(count));
  double total = Pack::sum(squares);
  for (; k < n; ++k) {
    if (d[k] < margin) {
      total += (margin - d[k]) * (margin - d[k]);
      ++close;
    }
  }
  *sum += total;
  return close;
}

// v = factor * max(0, margin - d) / d, 0 where d is 0. v may be d.
template <typename T>
inline void slopes_of_close(int n, T factor, T margin, const T* d, T* v) {
  typedef Packed<T> Pack;
  const typename Pack::Type zero = Pack::all(0), all = Pack::all(margin);
  int k = 0;
  for (; k + Pack::kSize <= n; k += Pack::kSize) {
    const typename Pack::Type own = Pack::load(d + k);
    const typename Pack::Type slope =
        factor * Pack::if_greater(all, own, all - own, zero) / own;
    Pack::store(Pack::if_greater(own, zero, slope, zero), v + k);
  }
  for (; k < n; ++k) {
    v[k] = d[k] > 0 ? factor * larger(T(0), margin - d[k]) / d[k] : T(0);
  }
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_BATCH_OTHERS_HPP_
