#ifndef CAFFE_METRIC_MARGIN_SOFTMAX_CUH_
#define CAFFE_METRIC_MARGIN_SOFTMAX_CUH_

#include <algorithm>

#include "caffe_metric/block.cuh"
#include "caffe_metric/grid.cuh"
#include "caffe_metric/margin_rule.hpp"
#include "caffe_metric/softmax_rule.hpp"

// The kernels of MarginSoftmaxLoss. A strip of logits holds the classes [first,
// first + classes) of those that meet. Rows are long: their pieces of
// kPieceClasses have a block each, grid (rows, pieces), and a state each, the
// pieces of a strip from `first_piece` on among those of all strips.

namespace caffe_metric {

struct MergeSoftmaxRows {
  CAFFE_METRIC_HD SoftmaxRow operator()(SoftmaxRow a,
                                        const SoftmaxRow& b) const {
    softmax_merge(b, &a);
    return a;
  }
};

// States of pieces: of row i and piece p at [p * rows + i].
template <typename T>
__global__ void fold_strip(const TargetOptions<T> options, const int first,
                           const int classes, const int first_piece,
                           const int* __restrict__ targets, const T* norms,
                           const T* target_norms, T* logits, T* cosines,
                           T* plain_targets, T* target_logits,
                           SoftmaxRow* pieces) {
  const int i = blockIdx.x;
  if (targets[i] < 0) {
    return;
  }
  T* row = logits + static_cast<size_t>(i) * classes;
  const int begin = blockIdx.y * kPieceClasses;
  const int end = min(classes, begin + kPieceClasses);
  const int y = targets[i] - first;
  T before = -HUGE_VAL;
  T after = -HUGE_VAL;
  T total = 0;
  block_sweep(begin, end, row, [&](int j, T value) {
    if (j < y) {
      before = larger(value, before);
    } else if (j > y) {
      after = larger(value, after);
    }
    total += j == y ? T(0) : value;
  });
  before = block_reduce(before, Greatest());
  after = block_reduce(after, Greatest());
  total = block_sum(total);
  T shift = larger(before, after);
  T logit = 0;
  if (begin <= y && y < end) {
    const T plain = row[y];
    const Target<T> target =
        make_target(options, plain, norms[i], target_norms[i]);
    logit = target.logit;
    shift = larger(logit, shift);
    total += logit;
    __syncthreads();  // all have read row[y]
    if (threadIdx.x == 0) {
      plain_targets[i] = plain;
      target_logits[i] = logit;
      cosines[i] = target.cosine;
    }
  }
  // The logits become exp(z - shift).
  T sum = 0;
  block_update(begin, end, row, [&](int j, T value) {
    const T exponential = exp((j == y ? logit : value) - shift);
    sum += exponential;
    return exponential;
  });
  sum = block_sum(sum);
  if (threadIdx.x == 0) {
    const SoftmaxRow piece = {before, after, shift, sum, total};
    pieces[(first_piece + blockIdx.y) * static_cast<size_t>(gridDim.x) + i] =
        piece;
  }
}

// A block a row: its state, its loss, whether it is right without a margin, and
// whether it keeps its gradient. reports is rows x 4: loss, right, 1 if it has
// a target, 1 if its norm is not finite; sums is what they add up to, by the
// block that comes last.
template <typename T>
__global__ void finish_rows(const TargetRule<T> rule, const bool semihard,
                            const double smoothing, const int classes,
                            const int pieces, const SoftmaxRow* of_pieces,
                            const int* targets, const T* norms,
                            const T* plain_targets, const T* target_logits,
                            SoftmaxRow* states, int* keep, double* reports,
                            int* arrived, double* sums) {
  const int i = blockIdx.x;
  const bool has_target = targets[i] >= 0;
  SoftmaxRow state = softmax_start();
  for (int p = threadIdx.x; has_target && p < pieces; p += kBlockThreads) {
    softmax_merge(of_pieces[p * static_cast<size_t>(gridDim.x) + i], &state);
  }
  state = block_reduce(state, MergeSoftmaxRows());
  if (threadIdx.x == 0) {
    states[i] = state;
    keep[i] = 1;
    double* report = reports + 4 * i;
    report[0] = report[1] = report[2] = 0;
    report[3] = !is_finite(norms[i]);
    if (has_target) {
      const T before = state.before;
      const T after = state.after;
      report[0] = softmax_loss(state, target_logits[i], smoothing, classes);
      report[1] = is_right(plain_targets[i], before, after);
      report[2] = 1;
      if (semihard) {
        keep[i] = is_semihard(rule, target_logits[i], plain_targets[i], before,
                              after);
      }
    }
  }
  if (block_is_last(arrived)) {
    const volatile double* all = reports;
    for (int column = 0; column < 4; ++column) {
      double sum = 0;
      for (int r = threadIdx.x; r < gridDim.x; r += kBlockThreads) {
        sum += all[4 * r + column];
      }
      sum = block_sum(sum);
      if (threadIdx.x == 0) {
        sums[column] = sum;
      }
    }
  }
}

// From a strip's logits, or their exponentials (kept), to d loss / d logits
// times *loss_weight / normalizer. The target's entry stands in target_diffs,
// too.
template <typename T>
__global__ void strip_diffs(const bool kept, const T* loss_weight,
                            const double normalizer, const double smoothing,
                            const int first, const int classes,
                            const int all_classes, const int first_piece,
                            const int* __restrict__ targets,
                            const T* target_logits, const SoftmaxRow* pieces,
                            const SoftmaxRow* states, T* logits,
                            T* target_diffs) {
  const int i = blockIdx.x;
  const int y = targets[i] - first;
  T* row = logits + static_cast<size_t>(i) * classes;
  const int begin = blockIdx.y * kPieceClasses;
  const int end = min(classes, begin + kPieceClasses);
  if (targets[i] < 0) {
    block_update(begin, end, row, [](int, T) { return T(0); });
    if (threadIdx.x == 0) {
      target_diffs[i] = 0;
    }
    return;
  }
  const double weight = *loss_weight / normalizer;
  const SoftmaxRow& piece =
      pieces[(first_piece + blockIdx.y) * static_cast<size_t>(gridDim.x) + i];
  const T shift = static_cast<T>(kept ? piece.shift : states[i].shift);
  const SoftmaxGradient<T> gradient =
      softmax_gradient<T>(states[i], shift, weight, smoothing, all_classes);
  block_update(begin, end, row, [=](int j, T value) {
    const T exponential =
        kept ? value : exp((j == y ? target_logits[i] : value) - shift);
    T diff = gradient.factor * exponential - gradient.offset;
    if (j == y) {
      diff -= gradient.target;
      target_diffs[i] = diff;
    }
    return diff;
  });
}

// A thread a row: multiplies the target's entry by the slope of its logit.
template <typename T>
__global__ void scale_strip_targets(const TargetOptions<T> options,
                                    const int first, const int rows,
                                    const int classes, const int* targets,
                                    const T* norms, const T* cosines,
                                    T* logits) {
  for (int i = threadIdx.x; i < rows; i += kBlockThreads) {
    const int y = targets[i] - first;
    if (targets[i] >= 0 && 0 <= y && y < classes && norms[i] != 0) {
      logits[static_cast<size_t>(i) * classes + y] *=
          target_gradient(options, cosines[i], norms[i]).of_weight;
    }
  }
}

// A block a class: own_update of its weights, by the strip's gradient.
template <typename T>
__global__ void update_weights(const Update<T> update, const bool project,
                               const int dim, const int* rows, const T* unit,
                               const T* diff, T* weights, T* momentum) {
  const size_t begin = static_cast<size_t>(blockIdx.x) * dim;
  const size_t offset =
      (rows ? rows[blockIdx.x] : blockIdx.x) * static_cast<size_t>(dim);
  const T along = project ? block_dot(dim, diff + begin, unit + begin) : T(0);
  for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
    update_element(update, along, diff[begin + k], weights + offset + k,
                   momentum + offset + k);
  }
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_MARGIN_SOFTMAX_CUH_
