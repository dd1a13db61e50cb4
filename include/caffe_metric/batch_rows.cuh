#ifndef CAFFE_METRIC_BATCH_ROWS_CUH_
#define CAFFE_METRIC_BATCH_ROWS_CUH_

#include "caffe_metric/batch_rule.hpp"
#include "caffe_metric/block.cuh"
#include "caffe_metric/gram.cuh"
#include "caffe_metric/pairs.cuh"

// Kernels of the losses over a batch: fold a row, slope a row. See
// batch_rule.hpp; the same as batch_rows.hpp does on the CPU.

namespace caffe_metric {

// What the kernels are given of a strip of anchors, the first of which is
// anchor `first`. Column j is row j of the batch where self is 0, so that an
// anchor does not meet itself; where self is -1, they are others.
template <typename T>
struct AnchorStrip {
  int first, n, self;
  const T* anchor_labels;
  const T* labels;
  GramRows<T> gram;  // what v still needs
  T* v;              // a row of n an anchor
};

template <typename Rule>
struct MergeStates {
  Rule rule;
  CAFFE_METRIC_HD typename Rule::State operator()(
      typename Rule::State a, const typename Rule::State& b) const {
    rule.merge(&a, b);
    return a;
  }
};

template <typename Rule>
__device__ typename Rule::State block_merge(const Rule& rule,
                                            const typename Rule::State& state) {
  const MergeStates<Rule> merge = {rule};
  return block_reduce(state, merge);
}

template <typename Rule, bool kAgain>
struct BlockSecondFold {
  template <typename T>
  static __device__ typename Rule::State run(
      const Rule& rule, int self, int n, T label, const T* labels, const T* v,
      const typename Rule::State& state) {
    typename Rule::State next = rule.again(state);
    for (int j = threadIdx.x; j < n; j += kBlockThreads) {
      if (j != self) {
        rule.fold_again(&next, v[j], labels[j] == label);
      }
    }
    return block_merge(rule, next);
  }
};

template <typename Rule>
struct BlockSecondFold<Rule, false> {
  template <typename T>
  static __device__ typename Rule::State run(
      const Rule&, int, int, T, const T*, const T*,
      const typename Rule::State& state) {
    return state;
  }
};

// A block an anchor: its state, and the sums of its pairs.
template <typename Rule, typename T>
__global__ void fold_rows(const Rule rule, const AnchorStrip<T> strip,
                          typename Rule::State* states, PairSums* pairs) {
  const int anchor = strip.first + blockIdx.x;
  const int self = strip.self < 0 ? -1 : anchor;
  const T label = strip.anchor_labels[anchor];
  T* v = strip.v + static_cast<size_t>(blockIdx.x) * strip.n;
  block_measure_row(strip.gram, anchor, strip.n, v);
  const PairSums sums = block_pair_sums(self, strip.n, v, label, strip.labels);
  typename Rule::State state = rule.start();
  for (int j = threadIdx.x; j < strip.n; j += kBlockThreads) {
    if (j != self) {
      rule.fold(&state, v[j], strip.labels[j] == label);
    }
  }
  state = block_merge(rule, state);
  state = BlockSecondFold<Rule, Rule::kFoldsAgain>::run(
      rule, self, strip.n, label, strip.labels, v, state);
  rule.close(&state);
  if (threadIdx.x == 0) {
    states[anchor] = state;
    pairs[anchor] = sums;
  }
}

template <typename Rule, bool kMeetsBatch>
struct BlockMeetBatch {
  static __device__ void add(const Rule& rule, int n,
                             const typename Rule::State* states,
                             BatchTotals* totals) {
    BatchTotals own = {0, 0};
    for (int i = threadIdx.x; i < n; i += kBlockThreads) {
      rule.add(&own, states[i]);
    }
    const double first = block_sum(own.first);
    const double second = block_sum(own.second);
    if (threadIdx.x == 0) {
      totals->first = first;
      totals->second = second;
    }
  }
  static __device__ void meet(const BatchTotals* totals, Rule* rule) {
    rule->meet(*totals);
  }
};

template <typename Rule>
struct BlockMeetBatch<Rule, false> {
  static __device__ void add(const Rule&, int, const typename Rule::State*,
                             BatchTotals*) {}
  static __device__ void meet(const BatchTotals*, Rule*) {}
};

// One block: what all n states add up to.
template <typename Rule>
__global__ void total_states(const Rule rule, const int n,
                             const typename Rule::State* states,
                             BatchTotals* totals) {
  BlockMeetBatch<Rule, Rule::kMeetsBatch>::add(rule, n, states, totals);
}

template <typename Rule, bool kPartners>
struct BlockSlopes {
  template <typename T>
  static __device__ double run(const Rule& rule, int self, int n, T label,
                               const T* labels, bool write,
                               const typename Rule::State* states,
                               const typename Rule::State& state, T* v) {
    typename Rule::State next = rule.again(state);
    for (int j = threadIdx.x; j < n; j += kBlockThreads) {
      if (j != self) {
        rule.fold_again(&next, v[j], labels[j] == label, states[j]);
      }
    }
    next = block_merge(rule, next);
    for (int j = threadIdx.x; write && j < n; j += kBlockThreads) {
      if (j != self) {
        v[j] =
            gram_weight(rule.measure(), v[j],
                        rule.slope(next, v[j], labels[j] == label, states[j]));
      }
    }
    return rule.loss(next);
  }
};

template <typename Rule>
struct BlockSlopes<Rule, false> {
  template <typename T>
  static __device__ double run(const Rule& rule, int self, int n, T label,
                               const T* labels, bool write,
                               const typename Rule::State*,
                               const typename Rule::State& state, T* v) {
    for (int j = threadIdx.x; write && j < n; j += kBlockThreads) {
      if (j != self) {
        v[j] = gram_weight(rule.measure(), v[j],
                           rule.slope(state, v[j], labels[j] == label));
      }
    }
    return rule.loss(state);
  }
};

// A block an anchor: losses[2 anchor] is its loss, and the next number whether
// it is > 0; with `write`, v becomes gram_weight of its derivatives.
template <typename Rule, typename T>
__global__ void slope_rows(const Rule rule, const AnchorStrip<T> strip,
                           const bool write, const BatchTotals* totals,
                           const typename Rule::State* states, double* losses) {
  Rule met = rule;
  BlockMeetBatch<Rule, Rule::kMeetsBatch>::meet(totals, &met);
  const int anchor = strip.first + blockIdx.x;
  const int self = strip.self < 0 ? -1 : anchor;
  T* v = strip.v + static_cast<size_t>(blockIdx.x) * strip.n;
  block_measure_row(strip.gram, anchor, strip.n, v);
  const double loss = BlockSlopes<Rule, Rule::kPartners>::run(
      met, self, strip.n, strip.anchor_labels[anchor], strip.labels, write,
      states, states[anchor], v);
  if (threadIdx.x == 0) {
    if (write && self >= 0) {
      v[self] = 0;
    }
    losses[2 * anchor] = loss;
    losses[2 * anchor + 1] = loss > 0 ? 1 : 0;
  }
}

// The launches, for anchors first ... first + rows.

template <typename Rule, typename T>
void launch_fold_rows(const Rule& rule, const AnchorStrip<T>& strip, int rows,
                      typename Rule::State* states, PairSums* pairs) {
  // NOLINT_NEXT_LINE(whitespace/operators)
  fold_rows<Rule, T><<<rows, kBlockThreads>>>(rule, strip, states, pairs);
}

template <typename Rule>
void launch_total_states(const Rule& rule, int n,
                         const typename Rule::State* states,
                         BatchTotals* totals) {
  if (Rule::kMeetsBatch) {
    // NOLINT_NEXT_LINE(whitespace/operators)
    total_states<Rule><<<1, kBlockThreads>>>(rule, n, states, totals);
  }
}

template <typename Rule, typename T>
void launch_slope_rows(const Rule& rule, const AnchorStrip<T>& strip, int rows,
                       bool write, const BatchTotals* totals,
                       const typename Rule::State* states, double* losses) {
  slope_rows<Rule, T>  // NOLINT_NEXT_LINE(whitespace/operators)
      <<<rows, kBlockThreads>>>(rule, strip, write, totals, states, losses);
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_BATCH_ROWS_CUH_
