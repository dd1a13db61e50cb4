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

template <typename T>
__global__ void column_means(const int n, const int dim, const T* x,
                             double* means) {
  __shared__ double partial[kBlockThreads];
  const int k = blockIdx.x * kMeanColumns + threadIdx.x % kMeanColumns;
  double sum = 0;
  if (k < dim) {
    for (int i = threadIdx.x / kMeanColumns; i < n; i += kMeanLanes) {
      sum += x[static_cast<size_t>(i) * dim + k];
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

// A block a row: u = x - mean, and ||u||^2. u may be x.
template <typename T>
__global__ void center_row(const int dim, const T* x, const double* means, T* u,
                           T* squares, const RowCheck<T> check) {
  const size_t begin = static_cast<size_t>(blockIdx.x) * dim;
  T square = 0;
  for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
    const T value = static_cast<T>(x[begin + k] - means[k]);
    u[begin + k] = value;
    square += value * value;
  }
  square = block_sum(square);
  if (threadIdx.x == 0) {
    squares[blockIdx.x] = square;
    check_row(check, blockIdx.x, square);
  }
}

// A block a row: u = x / ||x||, or 0, and ||x||.
template <typename T>
__global__ void unit_row(const int dim, const T* __restrict__ x,
                         T* __restrict__ u, T* lengths,
                         const RowCheck<T> check) {
  const size_t begin = static_cast<size_t>(blockIdx.x) * dim;
  const double length = block_norm(dim, x + begin);
  const double factor = length > 0 ? 1 / length : 0;
  for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
    u[begin + k] = static_cast<T>(factor * x[begin + k]);
  }
  if (threadIdx.x == 0) {
    lengths[blockIdx.x] = static_cast<T>(length);
    check_row(check, blockIdx.x, length);
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

// Row i of the Gram matrix, of n elements, becomes distances, in place. Where
// the Gram matrix has lost its digits the rows are subtracted, by a warp a
// pair.
template <typename T>
__device__ void block_measure_row(const GramRows<T>& gram, int i, int n,
                                  T* row) {
  __shared__ int close[kBlockThreads];
  if (gram.done) {
    return;
  }
  const Distance distance = gram.metric.distance;
  const Metric<T> squared = {SQUARED_L2, 0, 0};
  const T* ui = gram.u + static_cast<size_t>(i) * gram.dim;
  const int warp = threadIdx.x / kWarpThreads;
  const int lane = threadIdx.x % kWarpThreads;
  for (int begin = 0; begin < n; begin += kBlockThreads) {
    const int j = begin + threadIdx.x;
    bool cancels = false;
    if (j < n) {
      T value = row[j];
      if (!is_cosine(distance)) {
        const T xx = gram.squares[i];
        const T yy = gram.squares[gram.first + j];
        const bool self = gram.first + j == i;
        value = self ? T(0) : xx + yy - 2 * value;
        cancels = !self && gram_cancels(value, xx, yy);
      }
      if (!cancels) {
        row[j] = gram_distance(distance, value);
      }
    }
    if (!__syncthreads_or(cancels)) {
      continue;
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
  __syncthreads();  // the row is there for all
}

// That alone: a block a row, from row `row` on.
template <typename T>
__global__ void measure_row(const GramRows<T> gram, const int row, const int n,
                            T* distances) {
  block_measure_row(gram, row + blockIdx.x, n,
                    distances + static_cast<size_t>(blockIdx.x) * n);
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

// Of a square matrix of n rows, in place: v of w where there are distances, and
// then v + v^T. A block a tile under or on the diagonal and the one that
// mirrors it. part_sums[t][i] is the sum of what row i has in the t-th tile of
// columns.
template <typename T>
__global__ void add_transposed_tile(const Distance distance, const int n,
                                    const T* __restrict__ distances, T* w,
                                    T* part_sums) {
  __shared__ T lower[kTile][kTile + 1];  // no two rows begin in one bank
  __shared__ T upper[kTile][kTile + 1];
  const int row_tile = blockIdx.y;
  const int column_tile = blockIdx.x;
  if (column_tile > row_tile) {
    return;
  }
  const int i0 = row_tile * kTile;
  const int j0 = column_tile * kTile;
  const int x = threadIdx.x % kTile;
  for (int y = threadIdx.x / kTile; y < kTile; y += kTileRows) {
    const size_t below = static_cast<size_t>(i0 + y) * n + j0 + x;
    const size_t above = static_cast<size_t>(j0 + y) * n + i0 + x;
    T v = 0;
    if (i0 + y < n && j0 + x < n) {
      v = distances ? gram_weight(distance, distances[below], w[below])
                    : w[below];
    }
    lower[y][x] = v;
    v = 0;
    if (j0 + y < n && i0 + x < n) {
      v = distances ? gram_weight(distance, distances[above], w[above])
                    : w[above];
    }
    upper[y][x] = v;
  }
  __syncthreads();
  for (int y = threadIdx.x / kTile; y < kTile; y += kTileRows) {
    lower[y][x] += upper[x][y];
  }
  __syncthreads();
  for (int y = threadIdx.x / kTile; y < kTile; y += kTileRows) {
    if (i0 + y < n && j0 + x < n) {
      w[static_cast<size_t>(i0 + y) * n + j0 + x] = lower[y][x];
    }
    if (row_tile != column_tile && j0 + y < n && i0 + x < n) {
      w[static_cast<size_t>(j0 + y) * n + i0 + x] = lower[x][y];
    }
  }
  // A warp adds up the rows, another the columns.
  const int warp = threadIdx.x / kTile;
  T sum = 0;
  for (int k = 0; k < kTile && warp < 2; ++k) {
    sum += warp == 0 ? lower[x][k] : lower[k][x];
  }
  if (warp == 0 && i0 + x < n) {
    part_sums[static_cast<size_t>(column_tile) * n + i0 + x] = sum;
  } else if (warp == 1 && row_tile != column_tile && j0 + x < n) {
    part_sums[static_cast<size_t>(row_tile) * n + j0 + x] = sum;
  }
}

// v of w, in place, where there are distances, a block a row. sums[i] += the
// sum of row i.
template <typename T>
__global__ void weigh_row(const Distance distance, const int n,
                          const T* distances, T* w, T* sums) {
  const size_t begin = static_cast<size_t>(blockIdx.x) * n;
  T sum = 0;
  for (int j = threadIdx.x; j < n; j += kBlockThreads) {
    T v = w[begin + j];
    if (distances) {
      v = gram_weight(distance, distances[begin + j], v);
      w[begin + j] = v;
    }
    sum += v;
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

// What finish_gradient does, a block a row. The row's sum comes in `parts`
// parts, of which each matrix row of row_sums holds one for all rows.
template <typename T>
__global__ void finish_gradient_row(const Distance distance, const int dim,
                                    const T* x, const T* u, const T* lengths,
                                    const int parts, const T* row_sums,
                                    T* gradient) {
  const size_t begin = static_cast<size_t>(blockIdx.x) * dim;
  T* g = gradient + begin;
  if (!is_cosine(distance)) {
    T sum = 0;
    for (int p = threadIdx.x; p < parts; p += kBlockThreads) {
      sum += row_sums[static_cast<size_t>(p) * gridDim.x + blockIdx.x];
    }
    sum = block_sum(sum);
    for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
      g[k] += sum * u[begin + k];
    }
    __syncthreads();
  }
  if (is_of_unit_rows(distance)) {
    const T length = lengths[blockIdx.x];
    const T factor = length > 0 ? 1 / length : T(0);
    const T along = factor * block_dot(dim, g, x + begin);
    for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
      g[k] = factor * (g[k] - along * (factor * x[begin + k]));
    }
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
