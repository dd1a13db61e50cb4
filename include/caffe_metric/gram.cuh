#ifndef CAFFE_METRIC_GRAM_CUH_
#define CAFFE_METRIC_GRAM_CUH_

#include "caffe_metric/block.cuh"
#include "caffe_metric/distance.hpp"
#include "caffe_metric/gram.hpp"

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
                           T* squares) {
  const size_t begin = static_cast<size_t>(blockIdx.x) * dim;
  for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
    u[begin + k] = static_cast<T>(x[begin + k] - means[k]);
  }
  const T square = block_dot(dim, u + begin, u + begin);
  if (threadIdx.x == 0) {
    squares[blockIdx.x] = square;
  }
}

// A block a row: u = x / ||x||, or 0, and ||x||.
template <typename T>
__global__ void unit_row(const int dim, const T* x, T* u, T* lengths) {
  const size_t begin = static_cast<size_t>(blockIdx.x) * dim;
  const double length = block_norm(dim, x + begin);
  const double factor = length > 0 ? 1 / length : 0;
  for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
    u[begin + k] = static_cast<T>(factor * x[begin + k]);
  }
  if (threadIdx.x == 0) {
    lengths[blockIdx.x] = static_cast<T>(length);
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

// A block a row: rows `row` ... of the Gram matrix of u, their columns `first`
// ... first + n, become distances, in place. Where the Gram matrix has lost its
// digits, the rows are subtracted.
template <typename T>
__global__ void gram_to_distance_row(const Metric<T> metric, const int row,
                                     const int first, const int n,
                                     const int dim, const T* u,
                                     const T* squares, T* gram) {
  __shared__ int cancels[kBlockThreads];
  const Metric<T> squared = {SQUARED_L2, 0, 0};
  const int i = row + blockIdx.x;
  const T* ui = u + static_cast<size_t>(i) * dim;
  T* out = gram + static_cast<size_t>(blockIdx.x) * n;
  for (int begin = 0; begin < n; begin += kBlockThreads) {
    const int j = begin + threadIdx.x;
    T value = 0;
    bool cancel = false;
    if (j < n) {
      value = out[j];
      if (!is_cosine(metric.distance)) {
        value = squares[i] + squares[first + j] - 2 * value;
        cancel = gram_cancels(value, squares[i], squares[first + j]);
      }
    }
    cancels[threadIdx.x] = cancel;
    if (__syncthreads_or(cancel)) {
      for (int s = 0; s < kBlockThreads; ++s) {
        if (cancels[s]) {
          const T* uj = u + static_cast<size_t>(first + begin + s) * dim;
          const T exact = block_distance_sums(squared, dim, ui, uj).sum;
          value = s == threadIdx.x ? exact : value;
        }
      }
    }
    if (j < n) {
      out[j] = gram_distance(metric.distance, value);
    }
    __syncthreads();
  }
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

// v of w, in place, a block a row.
template <typename T>
__global__ void weigh_gram_row(const Distance distance, const int n,
                               const T* distances, T* w) {
  const size_t begin = static_cast<size_t>(blockIdx.x) * n;
  for (int j = threadIdx.x; j < n; j += kBlockThreads) {
    w[begin + j] = gram_weight(distance, distances[begin + j], w[begin + j]);
  }
}

// v + v^T of a square matrix, in place, a block a row.
template <typename T>
__global__ void add_transposed_row(const int n, T* v) {
  const int i = blockIdx.x;
  for (int j = threadIdx.x; j <= i; j += kBlockThreads) {
    T* lower = v + static_cast<size_t>(i) * n + j;
    T* upper = v + static_cast<size_t>(j) * n + i;
    const T sum = *lower + *upper;
    *lower = sum;
    *upper = sum;
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

// sums[i] += the sum of row i, a block a row.
template <typename T>
__global__ void add_row_sum(const int n, const T* v, T* sums) {
  T sum = 0;
  for (int j = threadIdx.x; j < n; j += kBlockThreads) {
    sum += v[static_cast<size_t>(blockIdx.x) * n + j];
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) {
    sums[blockIdx.x] += sum;
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

// What finish_gradient does, a block a row.
template <typename T>
__global__ void finish_gradient_row(const Distance distance, const int dim,
                                    const T* x, const T* u, const T* lengths,
                                    const T* row_sums, T* gradient) {
  const size_t begin = static_cast<size_t>(blockIdx.x) * dim;
  T* g = gradient + begin;
  if (!is_cosine(distance)) {
    for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
      g[k] += row_sums[blockIdx.x] * u[begin + k];
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
