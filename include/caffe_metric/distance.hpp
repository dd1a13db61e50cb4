#ifndef CAFFE_METRIC_DISTANCE_HPP_
#define CAFFE_METRIC_DISTANCE_HPP_

#include <cmath>

#include "caffe_metric/macros.hpp"
#include "caffe_metric/vector_ops.hpp"

// The distances of TripletLoss between two rows x and y of dimension D:
//
//   SQUARED_L2  ||x - y||^2
//   L2          ||x - y||
//   LP          (sum_k |x_k - y_k + eps|^p)^(1/p)
//   COSINE      1 - x' . y', with x' = x / ||x||, or 0 of a row of zeros
//
// and what other losses over a batch measure:
//
//   UNIT_L2     ||x' - y'||
//   SIMILARITY  x' . y'
//
// A distance is a sum of terms over the elements (distance_term), of which
// distance_of makes the number; its gradient is again a term an element
// (distance_gradient) with factors that belong to the pair (DistanceSlope).
// The gradient is 0 where it does not exist: L2 and LP at 0, COSINE of 0.

namespace caffe_metric {

// The first four numbers are those of TripletLossParameter in proto/. The last
// two are made by a Gram matrix only: see gram.hpp.
enum Distance {
  SQUARED_L2 = 0,
  L2 = 1,
  LP = 2,
  COSINE = 3,
  UNIT_L2 = 4,
  SIMILARITY = 5
};

// Whether it depends on the rows' directions only.
CAFFE_METRIC_HD bool is_of_unit_rows(Distance distance) {
  return distance >= COSINE;
}

// Whether it is a cosine.
CAFFE_METRIC_HD bool is_cosine(Distance distance) {
  return distance == COSINE || distance == SIMILARITY;
}

template <typename T>
struct Metric {
  Distance distance;
  T p;    // LP
  T eps;  // LP
};

template <typename T>
struct DistanceSums {
  T sum;  // of the terms; COSINE: x' . y'
  T x;    // COSINE: 1 / ||x||, 0 of a row of zeros
  T y;    // COSINE: of ||y||
};

// x^p for x >= 0.
template <typename T>
CAFFE_METRIC_HD T power(T x, T p) {
  return p == 1 ? x : p == 2 ? x * x : std::pow(x, p);
}

template <typename T>
CAFFE_METRIC_HD T root(T x, T p) {
  return p == 1 ? x : p == 2 ? std::sqrt(x) : std::pow(x, 1 / p);
}

template <typename T>
CAFFE_METRIC_HD T distance_term(const Metric<T>& metric, T x, T y) {
  const T difference = x - y;
  if (metric.distance != LP) {
    return difference * difference;
  }
  return power<T>(std::fabs(difference + metric.eps), metric.p);
}

template <typename T>
CAFFE_METRIC_HD T inverse_or_zero(T norm) {
  return norm > 0 ? 1 / norm : T(0);
}

template <typename T>
CAFFE_METRIC_HD T distance_of(const Metric<T>& metric,
                              const DistanceSums<T>& sums) {
  switch (metric.distance) {
    case SQUARED_L2:
      return sums.sum;
    case L2:
      return std::sqrt(sums.sum);
    case LP:
      return root(sums.sum, metric.p);
    default:
      return 1 - sums.sum;
  }
}

// dx_k = slope * f(x_k - y_k) and dy_k = -dx_k, f the identity, for LP
// sign(u) |u|^(p-1) of u = x_k - y_k + eps; COSINE, with the cosine as slope,
// dx_k = x * (slope * x'_k - y'_k) and dy_k = y * (slope * y'_k - x'_k): x' and
// y' are made of x and y by factors x and y, whatever the size of a row.
template <typename T>
struct DistanceSlope {
  T slope, x, y;
};

template <typename T>
CAFFE_METRIC_HD DistanceSlope<T> distance_slope(const Metric<T>& metric,
                                                const DistanceSums<T>& sums) {
  DistanceSlope<T> slope = {0, 0, 0};
  if (metric.distance == SQUARED_L2) {
    slope.slope = 2;
  } else if (metric.distance == L2) {
    slope.slope = sums.sum > 0 ? 1 / std::sqrt(sums.sum) : T(0);
  } else if (metric.distance == LP) {
    // (sum |u|^p)^(1/p - 1)
    slope.slope = sums.sum > 0 ? root(sums.sum, metric.p) / sums.sum : T(0);
  } else if (sums.x > 0 && sums.y > 0) {
    slope.slope = sums.sum;
    slope.x = sums.x;
    slope.y = sums.y;
  }
  return slope;
}

// One element of the gradient, scaled by `weight`, added to *dx and *dy.
template <typename T>
CAFFE_METRIC_HD void distance_gradient(const Metric<T>& metric,
                                       const DistanceSlope<T>& slope, T weight,
                                       T x, T y, T* dx, T* dy) {
  if (metric.distance == COSINE) {
    const T unit_x = slope.x * x;
    const T unit_y = slope.y * y;
    *dx += weight * slope.x * (slope.slope * unit_x - unit_y);
    *dy += weight * slope.y * (slope.slope * unit_y - unit_x);
    return;
  }
  T u = x - y;
  if (metric.distance == LP) {
    u += metric.eps;
    // At u = 0 a p below 1 has no slope.
    if (metric.p != 2 && u != 0) {
      u = std::copysign(
          metric.p == 1 ? T(1) : std::pow(std::fabs(u), metric.p - 1), u);
    }
  }
  const T d = weight * slope.slope * u;
  *dx += d;
  *dy -= d;
}

// Below: whole rows, on the CPU.

template <typename T>
inline T lp_sum(const Metric<T>& metric, int dim, const T* x, const T* y) {
  const T eps = metric.eps;
  if (metric.p == 1) {
    return sum_terms<T>(dim,
                        [=](int k) { return std::fabs(x[k] - y[k] + eps); });
  }
  if (metric.p == 2) {
    return sum_terms<T>(dim, [=](int k) {
      const T u = x[k] - y[k] + eps;
      return u * u;
    });
  }
  return sum_terms<T>(dim,
                      [=](int k) { return distance_term(metric, x[k], y[k]); });
}

// Of elements x'_k and y'_k; x and y are the inverse norms.
template <typename T>
struct ProductOfUnits {
  T x, y;
  template <typename V>
  V operator()(V element_x, V element_y) const {
    return (x * element_x) * (y * element_y);
  }
};

template <typename T>
inline DistanceSums<T> distance_sums(const Metric<T>& metric, int dim,
                                     const T* x, const T* y) {
  DistanceSums<T> sums = {0, 0, 0};
  switch (metric.distance) {
    case COSINE: {
      const ProductOfUnits<T> product = {inverse_or_zero(norm(dim, x)),
                                         inverse_or_zero(norm(dim, y))};
      sums.sum = sum_pairs(dim, x, y, product);
      sums.x = product.x;
      sums.y = product.y;
      break;
    }
    case LP:
      sums.sum = lp_sum(metric, dim, x, y);
      break;
    default:
      sums.sum = squared_distance(dim, x, y);
  }
  return sums;
}

template <typename T>
inline T row_distance(const Metric<T>& metric, int dim, const T* x,
                      const T* y) {
  return distance_of(metric, distance_sums(metric, dim, x, y));
}

// Adds weight * the gradient of the distance, whose slope is known, to rows dx
// and dy.
template <typename T>
inline void add_distance_gradient(const Metric<T>& metric, int dim,
                                  const DistanceSlope<T>& slope, T weight,
                                  const T* x, const T* y, T* dx, T* dy) {
  if (weight == 0) {
    return;
  }
  if (metric.distance == SQUARED_L2 || metric.distance == L2) {
    const T factor = weight * slope.slope;
    for (int k = 0; k < dim; ++k) {
      const T d = factor * (x[k] - y[k]);
      dx[k] += d;
      dy[k] -= d;
    }
    return;
  }
  for (int k = 0; k < dim; ++k) {
    distance_gradient(metric, slope, weight, x[k], y[k], &dx[k], &dy[k]);
  }
}

// The slope of an LP distance that is known.
template <typename T>
CAFFE_METRIC_HD DistanceSlope<T> lp_slope(const Metric<T>& metric, T distance) {
  const DistanceSums<T> sums = {power(distance, metric.p), 0, 0};
  return distance_slope(metric, sums);
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_DISTANCE_HPP_
