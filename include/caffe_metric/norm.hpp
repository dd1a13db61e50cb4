#ifndef CAFFE_METRIC_NORM_HPP_
#define CAFFE_METRIC_NORM_HPP_

#include <cmath>

#include "caffe_metric/macros.hpp"
#include "caffe_metric/vector_ops.hpp"

// y = x / max(||x||, eps) for one vector x; and, with g the gradient of y,
// dx = (g - (g . y) y) / ||x||, or 0 where ||x|| < eps.

namespace caffe_metric {

// What the vector is multiplied by.
template <typename T>
CAFFE_METRIC_HD T norm_factor(T norm, T eps) {
  return 1 / larger(norm, eps);
}

// What the gradient is multiplied by: norm_factor, or 0 under eps.
template <typename T>
CAFFE_METRIC_HD T norm_gradient_factor(T norm, T eps) {
  return norm < eps ? T(0) : 1 / norm;
}

// One element of the gradient.
template <typename T>
CAFFE_METRIC_HD T norm_gradient(T g, T g_dot_y, T y, T gradient_factor) {
  return (g - g_dot_y * y) * gradient_factor;
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_NORM_HPP_
