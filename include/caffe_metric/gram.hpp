#ifndef CAFFE_METRIC_GRAM_HPP_
#define CAFFE_METRIC_GRAM_HPP_

#include <algorithm>
#include <cmath>
#include <vector>

#include "caffe_metric/distance.hpp"
#include "caffe_metric/macros.hpp"
#include "caffe_metric/vector_ops.hpp"

// All distances of a batch by one matrix product: with u the prepared rows and
// G = u u^T their Gram matrix,
//
//   SQUARED_L2  d_ij = G_ii + G_jj - 2 G_ij      u = x - mean of the batch
//   L2          its square root                  the same
//   COSINE      d_ij = 1 - G_ij                  u = x / ||x||, or 0
//
// (LP has no such form: its distances are sums over the elements.) Distances
// do not change when the mean is taken away, and their rounding error does:
// it grows with the rows' norms.
//
// The gradient of L = sum_ij w_ij d_ij is a matrix product too. With v_ij =
// gram_weight(w_ij) and S = v + v^T,
//
//   SQUARED_L2, L2  dL/dx_i = (sum_j S_ij) u_i - sum_j S_ij u_j
//   COSINE          dL/dx_i = (g - (g . u_i) u_i) / ||x_i||,
//                   g = -sum_j S_ij u_j

namespace caffe_metric {

template <typename T>
inline void center_rows(int n, int dim, const T* x, T* u) {
  std::vector<double> mean(dim, 0.);
  for (int i = 0; i < n; ++i) {
    for (int k = 0; k < dim; ++k) {
      mean[k] += x[i * dim + k];
    }
  }
  for (int k = 0; k < dim; ++k) {
    mean[k] /= n;
  }
  for (int i = 0; i < n; ++i) {
    for (int k = 0; k < dim; ++k) {
      u[i * dim + k] = static_cast<T>(x[i * dim + k] - mean[k]);
    }
  }
}

// u = x / ||x||, 0 where x is 0; norms receives ||x||.
template <typename T>
inline void unit_rows(int n, int dim, const T* x, T* u, T* norms) {
  for (int i = 0; i < n; ++i) {
    norms[i] = std::sqrt(squared_norm(dim, x + i * dim));
    const T factor = norms[i] > 0 ? 1 / norms[i] : T(0);
    for (int k = 0; k < dim; ++k) {
      u[i * dim + k] = factor * x[i * dim + k];
    }
  }
}

// The prepared rows u (n x dim) of x, and a number a row: ||u||^2 for
// SQUARED_L2 and L2, ||x|| for COSINE.
template <typename T>
inline void prepare_rows(Distance distance, int n, int dim, const T* x, T* u,
                         T* row_norms) {
  if (distance == COSINE) {
    unit_rows(n, dim, x, u, row_norms);
    return;
  }
  center_rows(n, dim, x, u);
  for (int i = 0; i < n; ++i) {
    row_norms[i] = squared_norm(dim, u + i * dim);
  }
}

// Whether G_ii + G_jj - 2 G_ij has lost its digits to cancellation, so that
// the distance is better computed of the rows: for close rows and duplicates.
template <typename T>
CAFFE_METRIC_HD bool gram_cancels(T squared, T xx, T yy) {
  return !(squared > T(0.01) * (xx + yy));
}

// The distance of two rows, of ||u_i - u_j||^2 or, for COSINE, of u_i . u_j.
template <typename T>
CAFFE_METRIC_HD T gram_distance(Distance distance, T value) {
  if (distance == COSINE) {
    return 1 - value;
  }
  return distance == L2 ? std::sqrt(value) : value;
}

// v of w: see the top.
template <typename T>
CAFFE_METRIC_HD T gram_weight(Distance distance, T d, T w) {
  if (distance == SQUARED_L2) {
    return 2 * w;
  }
  if (distance == L2) {
    return d > 0 ? w / d : T(0);
  }
  return w;
}

// Turns row i of the Gram matrix into row i of the distances, in place. For
// LP, u is x itself, and the row is only written.
template <typename T>
inline void gram_to_distances(const Metric<T>& metric, int i, int n, int dim,
                              const T* u, const T* row_norms, T* row) {
  const T* ui = u + static_cast<size_t>(i) * dim;
  if (metric.distance == LP) {
    for (int j = 0; j < n; ++j) {
      row[j] = row_distance(metric, dim, ui, u + static_cast<size_t>(j) * dim);
    }
    return;
  }
  if (metric.distance == COSINE) {
    for (int j = 0; j < n; ++j) {
      row[j] = 1 - row[j];
    }
    return;
  }
  for (int j = 0; j < n; ++j) {
    row[j] = row_norms[i] + row_norms[j] - 2 * row[j];
  }
  for (int j = 0; j < n; ++j) {
    if (gram_cancels(row[j], row_norms[i], row_norms[j])) {
      row[j] = squared_distance(dim, ui, u + static_cast<size_t>(j) * dim);
    }
  }
  if (metric.distance == L2) {
    for (int j = 0; j < n; ++j) {
      row[j] = std::sqrt(row[j]);
    }
  }
}

// v += v^T, of an n x n matrix, by blocks. Every row of a block is read and
// written in one go: down a column, the rows of a large matrix fall on the
// same few lines of the cache.
template <typename T>
inline void add_transpose(int n, T* v) {
  const int kBlock = 16;
  T sums[kBlock][kBlock];
  for (int i0 = 0; i0 < n; i0 += kBlock) {
    for (int j0 = 0; j0 <= i0; j0 += kBlock) {
      const int rows = std::min(kBlock, n - i0);
      const int columns = std::min(kBlock, n - j0);
      T* lower = v + static_cast<size_t>(i0) * n + j0;
      T* upper = v + static_cast<size_t>(j0) * n + i0;
      for (int j = 0; j < columns; ++j) {
        for (int i = 0; i < rows; ++i) {
          sums[i][j] = upper[static_cast<size_t>(j) * n + i];
        }
      }
      for (int i = 0; i < rows; ++i) {
        for (int j = 0; j < columns; ++j) {
          sums[i][j] += lower[static_cast<size_t>(i) * n + j];
        }
      }
      for (int i = 0; i < rows; ++i) {
        for (int j = 0; j < columns; ++j) {
          lower[static_cast<size_t>(i) * n + j] = sums[i][j];
        }
      }
      for (int j = 0; j < columns; ++j) {
        for (int i = 0; i < rows; ++i) {
          upper[static_cast<size_t>(j) * n + i] = sums[i][j];
        }
      }
    }
  }
}

// Completes the gradient of the top of this file. On entry `gradient` holds
// -S u, and row_sums holds sum_j S_ij.
template <typename T>
inline void finish_gradient(Distance distance, int n, int dim, const T* u,
                            const T* row_norms, const T* row_sums,
                            T* gradient) {
  for (int i = 0; i < n; ++i) {
    const T* ui = u + static_cast<size_t>(i) * dim;
    T* gi = gradient + static_cast<size_t>(i) * dim;
    if (distance != COSINE) {
      add_scaled(dim, row_sums[i], ui, gi);
      continue;
    }
    const T g_dot_u = dot(dim, gi, ui);
    const T factor = row_norms[i] > 0 ? 1 / row_norms[i] : T(0);
    for (int k = 0; k < dim; ++k) {
      gi[k] = factor * (gi[k] - g_dot_u * ui[k]);
    }
  }
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_GRAM_HPP_
