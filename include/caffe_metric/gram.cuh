#ifndef CAFFE_METRIC_GRAM_CUH_
#define CAFFE_METRIC_GRAM_CUH_

#include "caffe_metric/block.cuh"
#include "caffe_metric/distance.hpp"
#include "caffe_metric/gram.hpp"
#include "caffe_metric/labels.hpp"

// Kernels around the Gram matrix of a batch: see gram.hpp for the equations.

namespace caffe_metric {

// A block: 32 columns, whose rows are shared by kMeanLanes threads each.
const int kMeanColumns = 32;
const int kMeanLanes = kBlockThreads / kMeanColumns;

// The elements of x's rows, or of those rows times their factors.
template <typename T>
struct ScaledRows {
  const T* x;
  const double* factors;  // may be NULL

  __device__ T at(int row, int dim, int k) const {
    const T value = x[static_cast<size_t>(row) * dim + k];
    return factors ? static_cast<T>(factors[row] * value) : value;
  }
};

template <typename T>
__global__ void column_means(const int n, const int dim,
                             const ScaledRows<T> rows, double* means) {
  __shared__ double partial[kBlockThreads];
  const int k = blockIdx.x * kMeanColumns + threadIdx.x % kMeanColumns;
  double sum = 0;
  if (k < dim) {
    for (int i = threadIdx.x / kMeanColumns; i < n; i += kMeanLanes) {
      sum += rows.at(i, dim, k);
    }
  }
  partial[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x < kMeanColumns && k < dim) {
    for (int lane = 1; lane < kMeanLanes; ++lane) {
      sum += partial[threadIdx.x + lane * kMeanColumns];
    }
    means[k] = sum / n;
  }
}

// A block a row: u = x - mean, and ||u||^2.
template <typename T>
__global__ void center_row(const int dim, const ScaledRows<T> rows,
                           const double* means, T* __restrict__ u, T* squares,
                           const RowCheck<T> check) {
  const size_t begin = static_cast<size_t>(blockIdx.x) * dim;
  T square = 0;
  for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
    const T value = static_cast<T>(rows.at(blockIdx.x, dim, k) - means[k]);
    u[begin + k] = value;
    square += value * value;
  }
  square = block_sum(square);
  if (threadIdx.x == 0) {
    squares[blockIdx.x] = square;
    check_row(check, blockIdx.x, square);
  }
}

// A block a row of x, which is row `first` of u or a later one: ||x||, and
// 1 / ||x||, or 0, by which the row is multiplied to u, where there is a u.
template <typename T>
__global__ void unit_row(const int first, const int dim,
                         const T* __restrict__ x, T* __restrict__ u, T* lengths,
                         double* factors, const RowCheck<T> check) {
  const int row = first + blockIdx.x;
  const T* xi = x + static_cast<size_t>(blockIdx.x) * dim;
  const double length = block_norm(dim, xi);
  const double factor = length > 0 ? 1 / length : 0;
  for (int k = threadIdx.x; u && k < dim; k += kBlockThreads) {
    u[static_cast<size_t>(row) * dim + k] = static_cast<T>(factor * xi[k]);
  }
  if (threadIdx.x == 0) {
    lengths[row] = static_cast<T>(length);
    factors[row] = factor;
    check_row(check, row, length);
  }
}

// The sums that the distance of two rows is made of.
template <typename T>
__device__ DistanceSums<T> block_distance_sums(const Metric<T>& metric, int dim,
                                               const T* x, const T* y) {
  DistanceSums<T> sums = {0, 0, 0};
  if (metric.distance == COSINE) {
    sums.x = inverse_or_zero(block_row_norm(dim, x));
    sums.y = inverse_or_zero(block_row_norm(dim, y));
  }
  for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
    sums.sum += metric.distance == COSINE ? (sums.x * x[k]) * (sums.y * y[k])
                                          : distance_term(metric, x[k], y[k]);
  }
  sums.sum = block_sum(sums.sum);
  return sums;
}

// A row of distances: of what a row of the Gram matrix holds, or has become.
template <typename T>
struct MeasuredRow {
  Distance distance;
  bool done;
  int self;          // the column that is the row itself
  T own;             // ||u||^2 of it,
  const T* squares;  // and of the columns
  const T* row;

  __device__ T operator[](int j) const {
    T value = row[j];
    if (done) {
      return value;
    }
    if (!is_cosine(distance)) {
      value = j == self ? T(0) : own + squares[j] - 2 * value;
    }
    return gram_distance(distance, value);
  }
};

template <typename T>
CAFFE_METRIC_HD bool has_close_rows(const GramRows<T>& gram) {
  return !gram.done && !is_cosine(gram.metric.distance);
}

// Row i, which has been seen.
template <typename T>
__device__ MeasuredRow<T> measured_row(const GramRows<T>& gram, int i,
                                       const T* row) {
  const bool squared = has_close_rows(gram);
  const MeasuredRow<T> measured = {gram.metric.distance,
                                   gram.done || (squared && gram.close[i]),
                                   i - gram.first,
                                   squared ? gram.squares[i] : T(0),
                                   gram.squares + gram.first,
                                   row};
  return measured;
}

// Row i of the Gram matrix, of n elements, some of which are close, becomes
// distances, in place; the rows that are close are subtracted, by a warp a
// pair.
template <typename T>
__device__ void block_measure_close(const GramRows<T>& gram, int i, int n,
                                    T* row) {
  __shared__ int close[kBlockThreads];
  const Distance distance = gram.metric.distance;
  const Metric<T> squared = {SQUARED_L2, 0, 0};
  const T* ui = gram.u + static_cast<size_t>(i) * gram.dim;
  const int warp = threadIdx.x / kWarpThreads;
  const int lane = threadIdx.x % kWarpThreads;
  for (int begin = 0; begin < n; begin += kBlockThreads) {
    const int j = begin + threadIdx.x;
    bool cancels = false;
    if (j < n) {
      const T xx = gram.squares[i];
      const T yy = gram.squares[gram.first + j];
      const bool self = gram.first + j == i;
      const T value = self ? T(0) : xx + yy - 2 * row[j];
      cancels = !self && gram_cancels(value, xx, yy);
      if (!cancels) {
        row[j] = gram_distance(distance, value);
      }
    }
    int count;
    const int place = block_offset(cancels, &count);
    if (cancels) {
      close[place] = j;
    }
    __syncthreads();
    for (int c = warp; c - warp < count; c += kBlockWarps) {
      T sum = 0;
      if (c < count) {
        const T* uj =
            gram.u + static_cast<size_t>(gram.first + close[c]) * gram.dim;
        for (int k = lane; k < gram.dim; k += kWarpThreads) {
          sum += distance_term(squared, ui[k], uj[k]);
        }
      }
      sum = warp_sum(sum);
      if (c < count && lane == 0) {
        row[close[c]] = gram_distance(distance, sum);
      }
    }
    __syncthreads();  // before the next list
  }
}

// Row i, which may not have been seen yet.
template <typename T>
__device__ MeasuredRow<T> block_measure_row(const GramRows<T>& gram, int i,
                                            int n, T* row) {
  if (!has_close_rows(gram) || gram.seen) {
    return measured_row(gram, i, row);
  }
  const T xx = gram.squares[i];
  bool close = false;
  for (int j = threadIdx.x; j < n; j += kBlockThreads) {
    const T yy = gram.squares[gram.first + j];
    close = close ||
            (gram.first + j != i && gram_cancels(xx + yy - 2 * row[j], xx, yy));
  }
  close = __syncthreads_or(close);
  if (threadIdx.x == 0) {
    gram.close[i] = close;
  }
  if (close) {
    block_measure_close(gram, i, n, row);
  }
  __syncthreads();  // the row and its mark are there for all
  return measured_row(gram, i, row);
}

// That alone: a block a row, from row `row` on.
template <typename T>
__global__ void measure_row(const GramRows<T> gram, const int row, const int n,
                            T* products) {
  block_measure_row(gram, row + blockIdx.x, n,
                    products + static_cast<size_t>(blockIdx.x) * n);
}

// LP has no Gram matrix: a thread a distance.
template <typename T>
__global__ void lp_distance_row(const Metric<T> metric, const int row,
                                const int first, const int n, const int dim,
                                const T* x, T* distances) {
  const T* xi = x + static_cast<size_t>(row + blockIdx.x) * dim;
  for (int j = threadIdx.x; j < n; j += kBlockThreads) {
    const T* xj = x + static_cast<size_t>(first + j) * dim;
    DistanceSums<T> sums = {0, 0, 0};
    for (int k = 0; k < dim; ++k) {
      sums.sum += distance_term(metric, xi[k], xj[k]);
    }
    distances[static_cast<size_t>(blockIdx.x) * n + j] =
        distance_of(metric, sums);
  }
}

// Below: from the derivatives w by the distances to the gradient.

// A tile of a matrix is read and written row by row, and turned in between.
const int kTile = 32;
const int kTileRows = kBlockThreads / kTile;  // that a block has at a time

inline int tiles(int n) { return (n + kTile - 1) / kTile; }

// Rows that a thread has in its column, where a matrix comes out symmetric, and
// the parts in which the sums of its rows come.
const int kPairRows = kTile;

inline int pair_parts(int rows) { return (rows + kPairRows - 1) / kPairRows; }

// v + v^T of a square matrix of n rows, in place, written where v^T is not 0. A
// block a tile under or on the diagonal and the one that mirrors it.
// part_sums[t][i], where it is asked for, is the sum of what row i has in the
// t-th tile of columns.
template <typename T>
__global__ void add_transposed_tile(const int n, T* v, T* part_sums) {
  __shared__ T lower[kTile][kTile + 1];  // no two rows begin in one bank
  __shared__ T upper[kTile][kTile + 1];
  const int row_tile = blockIdx.y;
  const int column_tile = blockIdx.x;
  if (column_tile > row_tile) {
    return;
  }
  const bool mirrors = row_tile != column_tile;
  const int i0 = row_tile * kTile;
  const int j0 = column_tile * kTile;
  const int x = threadIdx.x % kTile;
  for (int y = threadIdx.x / kTile; y < kTile; y += kTileRows) {
    const bool in_lower = i0 + y < n && j0 + x < n;
    const bool in_upper = j0 + y < n && i0 + x < n;
    lower[y][x] = in_lower ? v[static_cast<size_t>(i0 + y) * n + j0 + x] : T(0);
    upper[y][x] = in_upper ? v[static_cast<size_t>(j0 + y) * n + i0 + x] : T(0);
  }
  __syncthreads();
  for (int y = threadIdx.x / kTile; y < kTile; y += kTileRows) {
    if (i0 + y < n && j0 + x < n && upper[x][y] != 0) {
      v[static_cast<size_t>(i0 + y) * n + j0 + x] = lower[y][x] + upper[x][y];
    }
    if (mirrors && j0 + y < n && i0 + x < n && lower[x][y] != 0) {
      v[static_cast<size_t>(j0 + y) * n + i0 + x] = lower[x][y] + upper[y][x];
    }
  }
  if (!part_sums) {
    return;
  }
  // A warp adds up the rows, another the columns.
  const int warp = threadIdx.x / kTile;
  T sum = 0;
  for (int k = 0; k < kTile && warp < 2; ++k) {
    sum += warp == 0 ? lower[x][k] + upper[k][x] : lower[k][x] + upper[x][k];
  }
  if (warp == 0 && i0 + x < n) {
    part_sums[static_cast<size_t>(column_tile) * n + i0 + x] = sum;
  } else if (warp == 1 && mirrors && j0 + x < n) {
    part_sums[static_cast<size_t>(row_tile) * n + j0 + x] = sum;
  }
}

// sums[i] += the sum of row i, a block a row.
template <typename T>
__global__ void sum_row(const int n, const T* v, T* sums) {
  const T* row = v + static_cast<size_t>(blockIdx.x) * n;
  T sum = 0;
  for (int j = threadIdx.x; j < n; j += kBlockThreads) {
    sum += row[j];
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) {
    sums[blockIdx.x] += sum;
  }
}

// The first `columns` of a row's n elements, a block a row.
template <typename T>
__global__ void copy_columns_row(const int n, const int columns, const T* from,
                                 T* to) {
  for (int j = threadIdx.x; j < columns; j += kBlockThreads) {
    to[static_cast<size_t>(blockIdx.x) * columns + j] =
        from[static_cast<size_t>(blockIdx.x) * n + j];
  }
}

// sums[j] += the sum of column j, a thread a column.
template <typename T>
__global__ void add_column_sum(const int rows, const int n, const T* v,
                               T* sums) {
  const int j = blockIdx.x * blockDim.x + threadIdx.x;
  if (j < n) {
    T sum = 0;
    for (int i = 0; i < rows; ++i) {
      sum += v[static_cast<size_t>(i) * n + j];
    }
    sums[j] += sum;
  }
}

// What finish_gradient does, times the loss's diff and `own`, one over what the
// losses' sum is divided by: a block a row writes it to dx, or adds it there.
// The row's sum comes in `parts` parts, of which each matrix row of row_sums
// holds one for `rows` rows. means are those of UNIT_L2's unit rows.
template <typename T>
__global__ void finish_gradient_row(const Distance distance, const int dim,
                                    const T* u, const T* lengths,
                                    const double* means, const int parts,
                                    const int rows, const T* row_sums,
                                    const T* gradient, const T* loss_diff,
                                    const T own, const bool add, T* dx) {
  const size_t begin = static_cast<size_t>(blockIdx.x) * dim;
  const T* g = gradient + begin;
  const T* ui = u + begin;
  T sum = 0;
  for (int p = threadIdx.x; p < parts; p += kBlockThreads) {
    sum += row_sums[static_cast<size_t>(p) * rows + blockIdx.x];
  }
  sum = parts > 0 ? block_sum(sum) : T(0);
  T scale = loss_diff[0] * own;
  T along = 0;
  const bool of_unit_rows = is_of_unit_rows(distance);
  const bool centered = !is_cosine(distance);
  if (of_unit_rows) {
    const T length = lengths[blockIdx.x];
    scale = length > 0 ? scale / length : T(0);
    for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
      const T unit = centered ? static_cast<T>(ui[k] + means[k]) : ui[k];
      along += (sum == 0 ? g[k] : g[k] + sum * ui[k]) * unit;
    }
    along = block_sum(along);
  }
  for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
    T value = sum == 0 ? g[k] : g[k] + sum * ui[k];
    if (of_unit_rows) {
      value -= along * (centered ? static_cast<T>(ui[k] + means[k]) : ui[k]);
    }
    value *= scale;
    dx[begin + k] = add ? dx[begin + k] + value : value;
  }
}

// One element of the gradient of an LP distance that is known.
template <typename T>
__device__ void add_lp_element(const Metric<T>& metric, T distance, T weight,
                               T x, T y, T* dx, T* dy) {
  if (weight != 0) {
    distance_gradient(metric, lp_slope(metric, distance), weight, x, y, dx, dy);
  }
}

// LP: adds the gradient by row r = blockIdx.x of the distances of rows
// [first, first + rows) to all n, whose derivatives are w, to row r of
// gradient.
template <typename T>
__global__ void add_lp_gradient_row(const Metric<T> metric, const int first,
                                    const int rows, const int n, const int dim,
                                    const T* x, const T* distances, const T* w,
                                    T* gradient) {
  const int r = blockIdx.x;
  const int strip_row = r - first;
  const bool in_strip = strip_row >= 0 && strip_row < rows;
  for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
    const T xr = x[static_cast<size_t>(r) * dim + k];
    T sum = 0;
    T ignored = 0;
    for (int j = 0; j < n; ++j) {
      const T xj = x[static_cast<size_t>(j) * dim + k];
      if (in_strip) {  // d(r, j)
        const size_t at = static_cast<size_t>(strip_row) * n + j;
        add_lp_element(metric, distances[at], w[at], xr, xj, &sum, &ignored);
      }
      if (j >= first && j < first + rows) {  // d(j, r)
        const size_t at = static_cast<size_t>(j - first) * n + r;
        add_lp_element(metric, distances[at], w[at], xj, xr, &ignored, &sum);
      }
    }
    gradient[static_cast<size_t>(r) * dim + k] += sum;
  }
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_GRAM_CUH_
