#ifndef CAFFE_METRIC_VECTOR_OPS_HPP_
#define CAFFE_METRIC_VECTOR_OPS_HPP_

#include <cmath>

#include "caffe_metric/macros.hpp"

// Sums over the elements of one or two rows, for the CPU. Each keeps kLanes
// partial sums: the compiler turns them into vector instructions, which it may
// not do with a single sum, and the rounding error grows less.

namespace caffe_metric {

const int kLanes = 16;

template <typename T, typename Term>
inline T sum_terms(int n, const Term& term) {
  T lane[kLanes] = {0};
  int k = 0;
  for (; k + kLanes <= n; k += kLanes) {
    for (int l = 0; l < kLanes; ++l) {
      lane[l] += term(k + l);
    }
  }
  T sum = 0;
  for (; k < n; ++k) {
    sum += term(k);
  }
  for (int l = 0; l < kLanes; ++l) {
    sum += lane[l];
  }
  return sum;
}

template <typename T>
inline T sum(int n, const T* x) {
  return sum_terms<T>(n, [=](int k) { return x[k]; });
}

// x . y
template <typename T>
inline T dot(int n, const T* x, const T* y) {
  return sum_terms<T>(n, [=](int k) { return x[k] * y[k]; });
}

// ||x||^2
template <typename T>
inline T squared_norm(int n, const T* x) {
  return dot(n, x, x);
}

// ||x - y||^2
template <typename T>
inline T squared_distance(int n, const T* x, const T* y) {
  return sum_terms<T>(n, [=](int k) {
    const T difference = x[k] - y[k];
    return difference * difference;
  });
}

// y += a x
template <typename T>
inline void add_scaled(int n, T a, const T* x, T* y) {
  for (int k = 0; k < n; ++k) {
    y[k] += a * x[k];
  }
}

template <typename T>
CAFFE_METRIC_HD bool is_finite(T x) {
  return x - x == 0;
}

template <typename T>
inline bool all_finite(int n, const T* x) {
  return is_finite(sum_terms<T>(n, [=](int k) { return x[k] - x[k]; }));
}

template <typename T>
CAFFE_METRIC_HD T larger(T a, T b) {
  return a > b ? a : b;
}

template <typename T>
CAFFE_METRIC_HD T smaller(T a, T b) {
  return a < b ? a : b;
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_VECTOR_OPS_HPP_
