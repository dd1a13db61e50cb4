#ifndef CAFFE_METRIC_NORM_HPP_
#define CAFFE_METRIC_NORM_HPP_

#include <stddef.h>

#include <cmath>
#include <vector>

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

// The vectors of one item, for the CPU: `channels` elements each, at `inner`
// positions that lie side by side. Room is for what a position needs, so that
// memory is read in order.
template <typename T>
struct NormRoom {
  explicit NormRoom(int inner) : squares(inner), dots(inner), factors(inner) {}
  std::vector<double> squares;
  std::vector<T> dots, factors;
};

// y may be x.
template <typename T>
inline void norm_item(int channels, int inner, T eps, const T* x, T* y,
                      T* norms, NormRoom<T>* room) {
  // In double, the square of a float neither overflows nor underflows.
  double* squares = room->squares.data();
  T* factors = room->factors.data();
  for (int s = 0; s < inner; ++s) {
    squares[s] = 0;
  }
  for (int c = 0; c < channels; ++c) {
    const T* row = x + static_cast<size_t>(c) * inner;
    for (int s = 0; s < inner; ++s) {
      squares[s] += static_cast<double>(row[s]) * row[s];
    }
  }
  for (int s = 0; s < inner; ++s) {
    norms[s] = std::sqrt(squares[s]);
    factors[s] = norm_factor(norms[s], eps);
  }
  for (int c = 0; c < channels; ++c) {
    const size_t begin = static_cast<size_t>(c) * inner;
    for (int s = 0; s < inner; ++s) {
      y[begin + s] = x[begin + s] * factors[s];
    }
  }
}

// dx may be dy.
template <typename T>
inline void norm_item_gradient(int channels, int inner, T eps, const T* y,
                               const T* norms, const T* dy, T* dx,
                               NormRoom<T>* room) {
  T* dots = room->dots.data();
  T* factors = room->factors.data();
  for (int s = 0; s < inner; ++s) {
    dots[s] = 0;
    factors[s] = norm_gradient_factor(norms[s], eps);
  }
  for (int c = 0; c < channels; ++c) {
    const size_t begin = static_cast<size_t>(c) * inner;
    for (int s = 0; s < inner; ++s) {
      dots[s] += dy[begin + s] * y[begin + s];
    }
  }
  for (int c = 0; c < channels; ++c) {
    const size_t begin = static_cast<size_t>(c) * inner;
    for (int s = 0; s < inner; ++s) {
      dx[begin + s] =
          norm_gradient(dy[begin + s], dots[s], y[begin + s], factors[s]);
    }
  }
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_NORM_HPP_
