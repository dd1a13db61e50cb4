#ifndef CAFFE_METRIC_MARGIN_CUH_
#define CAFFE_METRIC_MARGIN_CUH_

#include <stdint.h>

#include <algorithm>

#include "caffe_metric/block.cuh"
#include "caffe_metric/grid.cuh"
#include "caffe_metric/labels.hpp"
#include "caffe_metric/margin_rule.hpp"
#include "caffe_metric/random.hpp"

// The kernels of MarginInnerProduct, and what MarginSoftmaxLoss shares of them.
// targets[i] is the class of row i, -1 for a row that has none. Where there are
// `rows`, class j has row rows[j] of the weights, else row j.

namespace caffe_metric {

inline __device__ size_t row_of(const int* rows, int j) {
  return rows ? rows[j] : j;
}

// One block: the targets, 1 in their marks, where there are marks, and the
// first row with a bad label, counted from 1, and its label; zeros if there is
// none.
template <typename T>
__global__ void read_labels(const LabelRule<T> rule, const int rows,
                            const T* labels, int* targets, int* marks, T* bad) {
  int first = rows;
  for (int i = threadIdx.x; i < rows; i += kBlockThreads) {
    const bool ignored = is_ignored(rule, labels[i]);
    targets[i] = ignored ? -1 : label_index(labels[i], rule.classes);
    if (targets[i] < 0 && !ignored) {
      first = min(first, i);
    }
    if (marks && targets[i] >= 0) {
      marks[targets[i]] = 1;
    }
  }
  first = block_least(first);
  if (threadIdx.x == 0) {
    bad[0] = first < rows ? first + 1 : 0;
    bad[1] = first < rows ? labels[first] : T(0);
  }
}

// A block a row: its norm and, where asked for, the unit row, and 1 for the
// norm of its target's weights.
template <typename T>
__global__ void measure_rows(const int dim, const T* x, T* norms,
                             T* target_norms, T* unit) {
  const size_t begin = static_cast<size_t>(blockIdx.x) * dim;
  const T norm = block_row_norm(dim, x + begin);
  if (threadIdx.x == 0) {
    norms[blockIdx.x] = norm;
    if (target_norms) {
      target_norms[blockIdx.x] = 1;
    }
  }
  if (unit) {
    const T factor = norm == 0 ? T(0) : 1 / norm;
    for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
      unit[begin + k] = factor * x[begin + k];
    }
  }
}

// A block a row: the norm of its target's weights.
template <typename T>
__global__ void measure_targets(const int dim, const int* targets,
                                const int* rows, const T* weights, T* norms) {
  const int i = blockIdx.x;
  const int y = targets[i];
  const T norm =
      y < 0 ? T(1) : block_row_norm(dim, weights + row_of(rows, y) * dim);
  if (threadIdx.x == 0) {
    norms[i] = norm;
  }
}

// A block a class: scales its weights to unit length in place, or writes what
// is left to multiply by. `unit`, where it is asked for, gets the unit row.
template <typename T>
__global__ void scale_weights(const int dim, const bool normalize,
                              const bool in_place, const int* rows, T* weights,
                              T* unit, T* factors) {
  T* w = weights + row_of(rows, blockIdx.x) * dim;
  T factor = 1;
  if (normalize && !is_unit(block_dot(dim, w, w))) {
    const T length = block_row_norm(dim, w);
    factor = length == 0 ? T(1) : 1 / length;
  }
  const bool scale = in_place && factor != 1;
  const size_t begin = static_cast<size_t>(blockIdx.x) * dim;
  for (int k = threadIdx.x; (unit || scale) && k < dim; k += kBlockThreads) {
    const T value = factor * w[k];
    if (scale) {
      w[k] = value;
    }
    if (unit) {
      unit[begin + k] = value;
    }
  }
  if (threadIdx.x == 0) {
    factors[blockIdx.x] = in_place ? T(1) : factor;
  }
}

// The greatest logit of a piece of a row below the target, and above it: of
// piece p and row i at [2 (p * rows + i)]. grid (rows, pieces)
template <typename T>
__global__ void piece_maxima(const int classes, const int* __restrict__ targets,
                             const T* __restrict__ logits, T* maxima) {
  const int i = blockIdx.x;
  const int y = targets[i];
  const T* row = logits + static_cast<size_t>(i) * classes;
  const int begin = blockIdx.y * kPieceClasses;
  const int end = min(classes, begin + kPieceClasses);
  T before = -HUGE_VAL;
  T after = -HUGE_VAL;
  block_sweep(begin, end, row, [&](int j, T value) {
    if (j < y) {
      before = larger(value, before);
    } else if (j > y) {
      after = larger(value, after);
    }
  });
  before = block_reduce(before, Greatest());
  after = block_reduce(after, Greatest());
  if (threadIdx.x == 0) {
    T* own = maxima + 2 * (blockIdx.y * static_cast<size_t>(gridDim.x) + i);
    own[0] = before;
    own[1] = after;
  }
}

// A block a row: the target's cosine and logit, and whether the row keeps its
// gradient (semihard), by the maxima of its pieces.
template <typename T>
__global__ void set_target_logits(const TargetOptions<T> options,
                                  const int pieces, const T* maxima,
                                  const int classes, const int* targets,
                                  const T* norms, const T* target_norms,
                                  T* cosines, int* keep, T* logits) {
  const int i = blockIdx.x;
  const int y = targets[i];
  T* row = logits + static_cast<size_t>(i) * classes;
  if (y < 0) {
    if (threadIdx.x == 0) {
      keep[i] = 1;
      cosines[i] = 0;
    }
    return;
  }
  const T plain = row[y];
  const Target<T> target =
      make_target(options, plain, norms[i], target_norms[i]);
  bool keep_row = true;
  if (maxima) {
    T before = -HUGE_VAL;
    T after = -HUGE_VAL;
    for (int p = threadIdx.x; p < pieces; p += kBlockThreads) {
      const T* own = maxima + 2 * (p * static_cast<size_t>(gridDim.x) + i);
      before = larger(own[0], before);
      after = larger(own[1], after);
    }
    before = block_reduce(before, Greatest());
    after = block_reduce(after, Greatest());
    keep_row = is_semihard(options.rule, target.logit, plain, before, after);
  }
  __syncthreads();  // all have read row[y]
  if (threadIdx.x == 0) {
    keep[i] = keep_row;
    cosines[i] = target.cosine;
    row[y] = target.logit;
  }
}

// Multiplies the targets' entries by the logit's slope, and keeps what they
// were.
template <typename T>
__global__ void scale_target_diffs(const TargetOptions<T> options,
                                   const int rows, const int classes,
                                   const int* targets, const T* norms,
                                   const T* cosines, T* diff, T* target_diffs) {
  for (size_t i = grid_index(); i < rows; i += grid_step()) {
    target_diffs[i] = 0;
    if (targets[i] >= 0) {
      T* entry = diff + i * classes + targets[i];
      target_diffs[i] = *entry;
      if (norms[i] != 0) {
        *entry *= target_gradient(options, cosines[i], norms[i]).of_weight;
      }
    }
  }
}

template <typename T>
__global__ void restore_target_diffs(const int rows, const int classes,
                                     const int* targets, const T* target_diffs,
                                     T* diff) {
  for (size_t i = grid_index(); i < rows; i += grid_step()) {
    if (targets[i] >= 0) {
      diff[i * classes + targets[i]] = target_diffs[i];
    }
  }
}

// A block a row: from A w to dx.
template <typename T>
__global__ void finish_feature_rows(const TargetOptions<T> options,
                                    const int dim, const T* x, const T* unit,
                                    const T* norms, const T* target_norms,
                                    const T* cosines, const int* keep,
                                    const T* target_diffs, T* dx) {
  const int i = blockIdx.x;
  const size_t begin = static_cast<size_t>(i) * dim;
  const T norm = norms[i];
  if (norm == 0 || !keep[i]) {
    for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
      dx[begin + k] = 0;
    }
    return;
  }
  if (options.normalize_features) {
    const T along = block_dot(dim, dx + begin, unit + begin);
    for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
      dx[begin + k] = (dx[begin + k] - along * unit[begin + k]) / norm;
    }
    return;
  }
  const T of_feature = target_gradient(options, cosines[i], norm).of_feature;
  const T length = target_length(options, norm, target_norms[i]);
  const T factor = target_diffs[i] * of_feature * (length / norm) / norm;
  for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
    dx[begin + k] += factor * x[begin + k];
  }
}

// A block a class: adds the gradient by its weights, along which there is none
// if their length is fixed (project).
template <typename T>
__global__ void add_tangent(const bool project, const int dim, const int* rows,
                            const T* unit, const T* factors, const T* diff,
                            T* weight_diff) {
  const size_t begin = static_cast<size_t>(blockIdx.x) * dim;
  const T factor = factors[blockIdx.x];
  T* dw = weight_diff + row_of(rows, blockIdx.x) * dim;
  const T along = project ? block_dot(dim, diff + begin, unit + begin) : T(0);
  for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
    dw[k] += factor * (diff[begin + k] - along * unit[begin + k]);
  }
}

// A block a class of the strip that begins at `first`: adds the gradient of
// L-Softmax along the weights, of the rows whose target it is.
template <typename T>
__global__ void add_length_gradient(const TargetOptions<T> options,
                                    const int first, const int rows,
                                    const int dim, const int* targets,
                                    const T* norms, const T* target_norms,
                                    const T* cosines, const T* target_diffs,
                                    const T* weights, T* diff) {
  const int j = first + blockIdx.x;
  T along = 0;
  for (int i = threadIdx.x; i < rows; i += kBlockThreads) {
    const T length = target_norms[i];
    if (targets[i] == j && norms[i] != 0 && length != 0) {
      const T of_feature =
          target_gradient(options, cosines[i], norms[i]).of_feature;
      along += target_diffs[i] * of_feature *
               target_length(options, norms[i], length) / length / length;
    }
  }
  along = block_sum(along);
  if (along != 0) {
    const size_t begin = static_cast<size_t>(blockIdx.x) * dim;
    for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
      diff[begin + k] += along * weights[begin + k];
    }
  }
}

// A block a row: the unit feature becomes its class's weights, if it is the
// last of its class in the batch and the class's coin says so.
template <typename T>
__global__ void copy_samples(const uint64_t key, const int rows, const int dim,
                             const int* targets, const int* class_rows,
                             const T* norms, const T* x, T* weights) {
  const int i = blockIdx.x;
  const int y = targets[i];
  int later = 0;
  for (int j = i + 1 + threadIdx.x; j < rows; j += kBlockThreads) {
    later |= targets[j] == y;
  }
  later = __syncthreads_or(later);
  const T norm = norms[i];
  if (y < 0 || later || !(norm > 0)) {
    return;
  }
  const size_t row = row_of(class_rows, y);
  if (coin(key, row)) {
    const T factor = 1 / norm;
    for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
      weights[row * dim + k] = factor * x[static_cast<size_t>(i) * dim + k];
    }
  }
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_MARGIN_CUH_
