#ifndef CAFFE_METRIC_GRAM_HPP_
#define CAFFE_METRIC_GRAM_HPP_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "caffe_metric/distance.hpp"
#include "caffe_metric/macros.hpp"
#include "caffe_metric/vector_ops.hpp"

// All distances of a batch by one matrix product: with u the prepared rows and
// G = u u^T their Gram matrix,
//
//   SQUARED_L2  d_ij = G_ii + G_jj - 2 G_ij      u = x - mean of the batch
//   L2          its square root                  the same
//   UNIT_L2     the same of unit rows            u = x' - mean of x',
//                                                x' = x / ||x||, or 0
//   COSINE      d_ij = 1 - G_ij                  u = x'
//   SIMILARITY  d_ij = G_ij                      u = x'
//
// (LP has no such form: its distances are sums over the elements.) Distances
// do not change when the mean is taken away, and their rounding error does:
// it grows with the rows' norms.
//
// The gradient of L = sum_ij w_ij d_ij is a matrix product too. With v_ij =
// gram_weight(w_ij) and S = v + v^T, g = -S u,
//
//   SQUARED_L2, L2     dL/dx_i = g_i + (sum_j S_ij) u_i
//   UNIT_L2            dL/dx_i = (h - (h . x'_i) x'_i) / ||x_i||,
//                      h = g_i + (sum_j S_ij) u_i
//   COSINE, SIMILARITY the same with h = g_i

namespace caffe_metric {

template <typename T>
inline void center_rows(int n, int dim, const T* x, T* u) {
  std::vector<double> mean(dim, 0.);
  for (int i = 0; i < n; ++i) {
    for (int k = 0; k < dim; ++k) {
      mean[k] += x[static_cast<size_t>(i) * dim + k];
    }
  }
  for (int k = 0; k < dim; ++k) {
    mean[k] /= n;
  }
  for (int i = 0; i < n; ++i) {
    for (int k = 0; k < dim; ++k) {
      const size_t at = static_cast<size_t>(i) * dim + k;
      u[at] = static_cast<T>(x[at] - mean[k]);
    }
  }
}

// u = x / ||x||, 0 where x is 0; lengths receives ||x||. The squares are added
// up in double, where those of a float neither overflow nor vanish.
template <typename T>
inline void unit_rows(int n, int dim, const T* x, T* u, T* lengths) {
  for (int i = 0; i < n; ++i) {
    const T* row = x + static_cast<size_t>(i) * dim;
    const double length = std::sqrt(sum_terms<double>(
        dim, [=](int k) { return static_cast<double>(row[k]) * row[k]; }));
    const double factor = length > 0 ? 1 / length : 0;
    for (int k = 0; k < dim; ++k) {
      u[static_cast<size_t>(i) * dim + k] = static_cast<T>(factor * row[k]);
    }
    lengths[i] = static_cast<T>(length);
  }
}

// The prepared rows u (n x dim) of x, and of each row ||u||^2 where a distance
// is made of squares, ||x|| where of unit rows.
template <typename T>
inline void prepare_rows(Distance distance, int n, int dim, const T* x, T* u,
                         T* squares, T* lengths) {
  if (is_of_unit_rows(distance)) {
    unit_rows(n, dim, x, u, lengths);
    if (is_cosine(distance)) {
      return;
    }
    x = u;
  }
  center_rows(n, dim, x, u);
  for (int i = 0; i < n; ++i) {
    squares[i] = squared_norm(dim, u + static_cast<size_t>(i) * dim);
  }
}

// Whether G_ii + G_jj - 2 G_ij has lost its digits to cancellation, so that
// the distance is better computed of the rows: for close rows and duplicates.
// Where it is not greater than this, of numbers or of packed ones.
template <typename T, typename V>
CAFFE_METRIC_HD V gram_least(V xx_and_yy) {
  return T(0.01) * xx_and_yy;
}

template <typename T>
CAFFE_METRIC_HD bool gram_cancels(T squared, T xx, T yy) {
  return !(squared > gram_least<T>(xx + yy));
}

// The distance of two rows, of ||u_i - u_j||^2 or, for cosines, of u_i . u_j.
template <typename T>
CAFFE_METRIC_HD T gram_distance(Distance distance, T value) {
  switch (distance) {
    case COSINE:
      return 1 - value;
    case L2:
    case UNIT_L2:
      return std::sqrt(value);
    default:
      return value;
  }
}

// A measure so far away that it has no part in a loss.
template <typename T>
inline T absent_measure(Distance distance) {
  return distance == SIMILARITY ? T(-HUGE_VAL) : T(HUGE_VAL);
}

// v of w: see the top.
template <typename T>
CAFFE_METRIC_HD T gram_weight(Distance distance, T d, T w) {
  switch (distance) {
    case SQUARED_L2:
      return 2 * w;
    case L2:
    case UNIT_L2:
      // 0 where d is; without a branch, so that compilers make vectors of it.
      return w / (d > 0 ? d : T(HUGE_VAL));
    case SIMILARITY:
      return -w;
    default:
      return w;
  }
}

// What stands for a squared distance that the Gram matrix does not give.
template <typename T>
CAFFE_METRIC_HD bool is_open(T squared) {
  return squared < 0;
}

// Turns products with n rows, whose ||u||^2 are `squares`, into squared
// distances, in place; where they cancel, into -1, which is open. Returns how
// many are.
template <typename T>
inline int gram_to_squares(T own, int n, const T* squares, T* row) {
  typedef Packed<T> Pack;
  const typename Pack::Type zero = Pack::all(0), one = Pack::all(1);
  typename Pack::Type open_in_packs = zero;
  int j = 0;
  for (; j + Pack::kSize <= n; j += Pack::kSize) {
    const typename Pack::Type both = own + Pack::load(squares + j);
    const typename Pack::Type squared = both - 2 * Pack::load(row + j);
    const typename Pack::Type least = gram_least<T>(both);
    Pack::store(Pack::if_greater(squared, least, squared, zero - one), row + j);
    open_in_packs += Pack::if_greater(squared, least, zero, one);
  }
  int open = static_cast<int>(Pack::sum(open_in_packs));
  for (; j < n; ++j) {
    row[j] = own + squares[j] - 2 * row[j];
    if (gram_cancels(row[j], own, squares[j])) {
      row[j] = -1;
      ++open;
    }
  }
  return open;
}

// The distances of row i and those of `others`, of squared ones: what is open,
// `open` of them, is computed of the rows.
template <typename T>
inline void squares_to_distances(Distance distance, int n, int dim, const T* ui,
                                 const T* others, int open, T* row) {
  for (int j = 0; open > 0; ++j) {
    if (is_open(row[j])) {
      row[j] = squared_distance(dim, ui, others + static_cast<size_t>(j) * dim);
      --open;
    }
  }
  if (distance != SQUARED_L2) {
    take_roots(n, row);
  }
}

// `count` rows of u that are close to each other, seen from one of them: their
// differences from it have kept the digits that cancel in products of rows.
template <typename T>
inline void rows_from(int dim, const T* u, const T* origin, const int* rows,
                      int count, T* from, T* squares) {
  for (int i = 0; i < count; ++i, from += dim) {
    const T* row = u + static_cast<size_t>(rows[i]) * dim;
    for (int k = 0; k < dim; ++k) {
      from[k] = row[k] - origin[k];
    }
    squares[i] = squared_norm(dim, from);
  }
}

// Writes the squared distances of such a row and others, of their products, to
// those columns of its row that are open, and returns how many are not any
// more: they stay open where the products cancel once more, and are 0 of rows
// that equal the origin.
template <typename T>
inline int close_squares(T own, int count, const int* columns, const T* squares,
                         const T* products, T* row) {
  int closed = 0;
  for (int k = 0; k < count; ++k) {
    T* to = row + columns[k];
    const T squared = own + squares[k] - 2 * products[k];
    const bool equal = own + squares[k] == 0;
    if (is_open(*to) && (equal || !gram_cancels(squared, own, squares[k]))) {
      *to = squared;
      ++closed;
    }
  }
  return closed;
}

// What a row of the Gram matrix needs to be read as one of distances; nothing
// where it is done. On the GPU distances are made where they are read. Rows
// with close ones, whose products have lost their digits, are overwritten by
// distances in the kernel that reads them first, and close[i] says so of row i
// of u from then on (seen).
template <typename T>
struct GramRows {
  Metric<T> metric;
  bool done, seen;
  int first, dim;  // column j is row first + j of u
  const T* u;
  const T* squares;
  int* close;
};

// Turns row i of the Gram matrix, its columns first ... first + n, into
// distances, in place. For LP, u is x itself, and the row is only written.
template <typename T>
inline void gram_to_distances(const Metric<T>& metric, int i, int first, int n,
                              int dim, const T* u, const T* squares, T* row) {
  const T* ui = u + static_cast<size_t>(i) * dim;
  const T* others = u + static_cast<size_t>(first) * dim;
  if (metric.distance == LP) {
    for (int j = 0; j < n; ++j) {
      row[j] =
          row_distance(metric, dim, ui, others + static_cast<size_t>(j) * dim);
    }
  } else if (metric.distance == COSINE) {
    for (int j = 0; j < n; ++j) {
      row[j] = 1 - row[j];
    }
  } else if (metric.distance != SIMILARITY) {
    const int open = gram_to_squares(squares[i], n, squares + first, row);
    squares_to_distances(metric.distance, n, dim, ui, others, open, row);
  }
}

// Rows of the blocks that a matrix is transposed by.
const int kTransposeRows = 16;

// block_ij = from_ji, `step` numbers from one of its rows to the next.
template <typename T>
inline void take_transposed(int rows, int columns, const T* from, size_t step,
                            T block[][kTransposeRows]) {
  for (int j = 0; j < columns; ++j) {
    for (int i = 0; i < rows; ++i) {
      block[i][j] = from[j * step + i];
    }
  }
}

#ifdef __SSE2__
inline void take_transposed(int rows, int columns, const float* from,
                            size_t step, float block[][kTransposeRows]) {
  if (rows < kTransposeRows || columns < kTransposeRows) {
    take_transposed<float>(rows, columns, from, step, block);
    return;
  }
  for (int j = 0; j < kTransposeRows; j += 4) {
    for (int i = 0; i < kTransposeRows; i += 4) {
      const float* corner = from + j * step + i;
      __m128 a = _mm_loadu_ps(corner), b = _mm_loadu_ps(corner + step);
      __m128 c = _mm_loadu_ps(corner + 2 * step);
      __m128 d = _mm_loadu_ps(corner + 3 * step);
      _MM_TRANSPOSE4_PS(a, b, c, d);
      _mm_storeu_ps(&block[i][j], a);
      _mm_storeu_ps(&block[i + 1][j], b);
      _mm_storeu_ps(&block[i + 2][j], c);
      _mm_storeu_ps(&block[i + 3][j], d);
    }
  }
}
#endif

// Copies what lies above the diagonal of an n x n matrix to what it mirrors in
// rows [begin, end), multiples of kTransposeRows or n. Parts may run side by
// side.
template <typename T>
inline void mirror_upper(int n, int begin, int end, T* v) {
  const int kBlock = kTransposeRows;
  T block[kBlock][kBlock];
  for (int i0 = begin; i0 < end; i0 += kBlock) {
    const int rows = std::min(kBlock, n - i0);
    for (int j0 = 0; j0 <= i0; j0 += kBlock) {
      const int columns = std::min(kBlock, n - j0);
      const T* upper = v + static_cast<size_t>(j0) * n + i0;
      T* lower = v + static_cast<size_t>(i0) * n + j0;
      take_transposed(rows, columns, upper, n, block);
      for (int i = 0; i < rows; ++i) {
        // On the diagonal the upper part is the source.
        const int count = j0 < i0 ? columns : i;
        std::copy(block[i], block[i] + count,
                  lower + static_cast<size_t>(i) * n);
      }
    }
  }
}

// The elements [from, to) of the LP gradient, of the weights w of row i of the
// distances d.
template <typename T>
inline void add_lp_gradient(const Metric<T>& metric, int i, int first, int n,
                            int dim, int from, int to, const T* x, const T* d,
                            const T* w, T* gradient) {
  for (int j = 0; j < n; ++j) {
    if (w[j] != 0) {
      const size_t a = static_cast<size_t>(i) * dim + from;
      const size_t b = static_cast<size_t>(first + j) * dim + from;
      add_distance_gradient(metric, to - from, lp_slope(metric, d[j]), w[j],
                            x + a, x + b, gradient + a, gradient + b);
    }
  }
}

// v += v^T, of an n x n matrix, by blocks. Every row of a block is read and
// written in one go: down a column, the rows of a large matrix fall on the
// same few lines of the cache. Done is what lies under the diagonal in rows
// [begin, end), multiples of kTransposeRows or n, and what mirrors it: such
// parts may run side by side.
template <typename T>
inline void add_transpose(int n, int begin, int end, T* v) {
  const int kBlock = kTransposeRows;
  T sums[kBlock][kBlock], turned[kBlock][kBlock];
  for (int i0 = begin; i0 < end; i0 += kBlock) {
    for (int j0 = 0; j0 <= i0; j0 += kBlock) {
      const int rows = std::min(kBlock, end - i0);
      const int columns = std::min(kBlock, n - j0);
      T* lower = v + static_cast<size_t>(i0) * n + j0;
      T* upper = v + static_cast<size_t>(j0) * n + i0;
      take_transposed(rows, columns, upper, n, sums);
      for (int i = 0; i < rows; ++i) {
        T* row = lower + static_cast<size_t>(i) * n;
        add_scaled(columns, T(1), row, sums[i]);
        std::copy(sums[i], sums[i] + columns, row);
      }
      take_transposed(columns, rows, &sums[0][0], kBlock, turned);
      for (int j = 0; j < columns; ++j) {
        std::copy(turned[j], turned[j] + rows,
                  upper + static_cast<size_t>(j) * n);
      }
    }
  }
}

// Completes the gradient of the top of this file, of one row. On entry it
// holds -S u; row_sum is sum_j S_ij.
template <typename T>
inline void finish_gradient(Distance distance, int dim, const T* x, const T* u,
                            T length, T row_sum, T* gradient) {
  if (!is_cosine(distance)) {
    add_scaled(dim, row_sum, u, gradient);
  }
  if (is_of_unit_rows(distance)) {
    const T factor = length > 0 ? 1 / length : T(0);
    const T along = factor * dot(dim, gradient, x);
    for (int k = 0; k < dim; ++k) {
      gradient[k] = factor * (gradient[k] - along * (factor * x[k]));
    }
  }
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_GRAM_HPP_
