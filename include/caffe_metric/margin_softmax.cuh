#ifndef CAFFE_METRIC_MARGIN_SOFTMAX_CUH_
#define CAFFE_METRIC_MARGIN_SOFTMAX_CUH_

#include "caffe_metric/block.cuh"
#include "caffe_metric/margin_rule.hpp"
#include "caffe_metric/softmax_rule.hpp"

// The kernels of MarginSoftmaxLoss: a block a row of a strip of logits, which
// holds the classes [first, first + classes) of those that meet.

namespace caffe_metric {

static __global__ void start_rows(const int rows, SoftmaxRow* states) {
  for (int i = threadIdx.x; i < rows; i += kBlockThreads) {
    states[i] = softmax_start();
  }
}

// Folds a strip into the rows' states. The target's logit gets its margin; the
// logits become exp(z - shift), shifts[i] being the strip's own.
template <typename T>
__global__ void fold_strip(const TargetOptions<T> options, const int first,
                           const int classes, const int* targets,
                           const T* norms, const T* target_norms, T* logits,
                           T* cosines, T* plain_targets, T* target_logits,
                           T* shifts, SoftmaxRow* states) {
  const int i = blockIdx.x;
  const int y = targets[i] - first;
  if (targets[i] < 0) {
    return;
  }
  T* row = logits + static_cast<size_t>(i) * classes;
  SoftmaxRow piece = softmax_start();
  T before = -HUGE_VAL;
  T after = -HUGE_VAL;
  T total = 0;
  for (int j = threadIdx.x; j < classes; j += kBlockThreads) {
    if (j < y) {
      before = larger(row[j], before);
    } else if (j > y) {
      after = larger(row[j], after);
    }
    total += j == y ? T(0) : row[j];
  }
  before = block_reduce(before, Greatest());
  after = block_reduce(after, Greatest());
  total = block_sum(total);
  T shift = larger(before, after);
  T logit = 0;
  if (0 <= y && y < classes) {
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
  T sum = 0;
  for (int j = threadIdx.x; j < classes; j += kBlockThreads) {
    row[j] = exp((j == y ? logit : row[j]) - shift);
    sum += row[j];
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) {
    piece.before = before;
    piece.after = after;
    piece.shift = shift;
    piece.sum = sum;
    piece.total = total;
    softmax_merge(piece, &states[i]);
    shifts[i] = shift;
  }
}

// A thread a row: its loss, whether it is right without a margin, and whether
// it keeps its gradient. reports is rows x 4: loss, right, 1 if it has a
// target, 1 if its norm is not finite.
template <typename T>
__global__ void finish_rows(const TargetRule<T> rule, const bool semihard,
                            const double smoothing, const int rows,
                            const int classes, const int* targets,
                            const T* norms, const T* plain_targets,
                            const T* target_logits, const SoftmaxRow* states,
                            int* keep, double* reports) {
  for (int i = threadIdx.x; i < rows; i += kBlockThreads) {
    keep[i] = 1;
    double* report = reports + 4 * i;
    report[0] = report[1] = report[2] = 0;
    report[3] = !is_finite(norms[i]);
    if (targets[i] >= 0) {
      const T before = states[i].before;
      const T after = states[i].after;
      report[0] = softmax_loss(states[i], target_logits[i], smoothing, classes);
      report[1] = is_right(plain_targets[i], before, after);
      report[2] = 1;
      if (semihard) {
        keep[i] = is_semihard(rule, target_logits[i], plain_targets[i], before,
                              after);
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
                            const int all_classes, const int* targets,
                            const T* target_logits, const T* shifts,
                            const SoftmaxRow* states, T* logits,
                            T* target_diffs) {
  const int i = blockIdx.x;
  const int y = targets[i] - first;
  T* row = logits + static_cast<size_t>(i) * classes;
  if (targets[i] < 0) {
    for (int j = threadIdx.x; j < classes; j += kBlockThreads) {
      row[j] = 0;
    }
    if (threadIdx.x == 0) {
      target_diffs[i] = 0;
    }
    return;
  }
  const double weight = *loss_weight / normalizer;
  const T shift = kept ? shifts[i] : static_cast<T>(states[i].shift);
  const SoftmaxGradient<T> gradient =
      softmax_gradient<T>(states[i], shift, weight, smoothing, all_classes);
  for (int j = threadIdx.x; j < classes; j += kBlockThreads) {
    const T exponential =
        kept ? row[j] : exp((j == y ? target_logits[i] : row[j]) - shift);
    row[j] = gradient.factor * exponential - gradient.offset;
    if (j == y) {
      row[j] -= gradient.target;
      target_diffs[i] = row[j];
    }
  }
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
