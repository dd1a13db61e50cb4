#ifndef CAFFE_METRIC_BATCH_ROWS_CUH_
#define CAFFE_METRIC_BATCH_ROWS_CUH_

#include <algorithm>

#include "caffe_metric/batch_rule.hpp"
#include "caffe_metric/block.cuh"
#include "caffe_metric/gram.cuh"
#include "caffe_metric/pairs.cuh"

// Kernels of the losses over a batch: fold a row, slope a row. See
// batch_rule.hpp; the same as batch_rows.hpp does on the CPU. Rows that all are
// anchors are sloped from both sides at once: pair (i, j) gets the sum of its
// derivatives by anchor i and by anchor j.

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
  T* sums;           // of slope_pairs, where they are asked for
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
      const Rule& rule, int self, int n, T label, const T* labels,
      const MeasuredRow<T>& d, const typename Rule::State& state) {
    typename Rule::State next = rule.again(state);
    for (int j = threadIdx.x; j < n; j += kBlockThreads) {
      if (j != self) {
        rule.fold_again(&next, d[j], labels[j] == label);
      }
    }
    return block_merge(rule, next);
  }
};

template <typename Rule>
struct BlockSecondFold<Rule, false> {
  template <typename T>
  static __device__ typename Rule::State run(
      const Rule&, int, int, T, const T*, const MeasuredRow<T>&,
      const typename Rule::State& state) {
    return state;
  }
};

// losses[2 anchor] is an anchor's loss, and the next number whether it is > 0.
template <typename Rule>
__device__ void write_loss(const Rule& rule, const typename Rule::State& state,
                           int anchor, double* losses) {
  const double loss = rule.loss(state);
  losses[2 * anchor] = loss;
  losses[2 * anchor + 1] = loss > 0 ? 1 : 0;
}

// An anchor's row becomes gram_weight of its derivatives.
template <typename Rule, bool kPartners>
struct BlockSlopes {
  template <typename T>
  static __device__ void write(const Rule& rule, const AnchorStrip<T>& strip,
                               int self, T label, const MeasuredRow<T>& d,
                               const typename Rule::State& state, T* v) {
    for (int j = threadIdx.x; j < strip.n; j += kBlockThreads) {
      T slope = 0;
      if (j != self) {
        const T measure = d[j];
        slope =
            gram_weight(rule.measure(), measure,
                        rule.slope(state, measure, strip.labels[j] == label));
      }
      v[j] = slope;
    }
  }
  // Of the pair of two anchors.
  template <typename T>
  static __device__ T both(const Rule& rule, T d, bool same,
                           const typename Rule::State& state,
                           const typename Rule::State& other) {
    return rule.slope(state, d, same) + rule.slope(other, d, same);
  }
};

// Partners are all anchors: there are both sides only.
template <typename Rule>
struct BlockSlopes<Rule, true> {
  template <typename T>
  static __device__ void write(const Rule&, const AnchorStrip<T>&, int, T,
                               const MeasuredRow<T>&,
                               const typename Rule::State&, T*) {}
  template <typename T>
  static __device__ T both(const Rule& rule, T d, bool same,
                           const typename Rule::State& state,
                           const typename Rule::State& other) {
    return rule.slope(state, d, same, other) +
           rule.slope(other, d, same, state);
  }
};

// A block an anchor: its state, the sums of its pairs, and its loss, unless
// that is to wait for other anchors. With `write`, v becomes gram_weight of the
// derivatives by this anchor.
template <typename Rule, typename T>
__global__ void fold_rows(const Rule rule, const AnchorStrip<T> strip,
                          const bool write, typename Rule::State* states,
                          PairSums* pairs, double* losses) {
  const int anchor = strip.first + blockIdx.x;
  const int self = strip.self < 0 ? -1 : anchor;
  const T label = strip.anchor_labels[anchor];
  T* v = strip.v + static_cast<size_t>(blockIdx.x) * strip.n;
  const MeasuredRow<T> d = block_measure_row(strip.gram, anchor, strip.n, v);
  PairPart part;
  typename Rule::State state = rule.start();
  for (int j = threadIdx.x; j < strip.n; j += kBlockThreads) {
    if (j != self) {
      const T measure = d[j];
      const bool same = strip.labels[j] == label;
      part.add(measure, same);
      rule.fold(&state, measure, same);
    }
  }
  const PairSums sums = block_pair_sums(part, strip.n - (self < 0 ? 0 : 1));
  state = block_merge(rule, state);
  state = BlockSecondFold<Rule, Rule::kFoldsAgain>::run(
      rule, self, strip.n, label, strip.labels, d, state);
  rule.close(&state);
  if (threadIdx.x == 0) {
    states[anchor] = state;
    pairs[anchor] = sums;
    if (!Rule::kMeetsBatch && !Rule::kPartners) {
      write_loss(rule, state, anchor, losses);
    }
  }
  if (write) {
    BlockSlopes<Rule, Rule::kPartners>::write(rule, strip, self, label, d,
                                              state, v);
  }
}

template <typename Rule, bool kMeetsBatch>
struct BlockMeetBatch {
  static __device__ BatchTotals add(const Rule& rule, int n,
                                    const typename Rule::State* states) {
    BatchTotals own = {0, 0};
    for (int i = threadIdx.x; i < n; i += kBlockThreads) {
      rule.add(&own, states[i]);
    }
    const BatchTotals totals = {block_sum(own.first), block_sum(own.second)};
    return totals;
  }
  static __device__ void meet(const BatchTotals* totals, Rule* rule) {
    rule->meet(*totals);
  }
};

template <typename Rule>
struct BlockMeetBatch<Rule, false> {
  static __device__ BatchTotals add(const Rule&, int,
                                    const typename Rule::State*) {
    const BatchTotals none = {0, 0};
    return none;
  }
  static __device__ void meet(const BatchTotals*, Rule*) {}
};

// One block: what all n states add up to, and the losses.
template <typename Rule>
__global__ void total_states(const Rule rule, const int n,
                             const typename Rule::State* states,
                             BatchTotals* totals, double* losses) {
  typedef BlockMeetBatch<Rule, Rule::kMeetsBatch> Meet;
  const BatchTotals all = Meet::add(rule, n, states);
  Rule met = rule;
  Meet::meet(&all, &met);
  for (int i = threadIdx.x; i < n; i += kBlockThreads) {
    write_loss(met, states[i], i, losses);
  }
  if (threadIdx.x == 0) {
    *totals = all;
  }
}

template <typename Rule, bool kPartners>
struct BlockPartners {
  template <typename T>
  static __device__ typename Rule::State fold(
      const Rule& rule, int self, int n, T label, const T* labels,
      const MeasuredRow<T>& d, const typename Rule::State* states) {
    typename Rule::State next = rule.again(states[self]);
    for (int j = threadIdx.x; j < n; j += kBlockThreads) {
      if (j != self && labels[j] == label) {
        rule.fold_again(&next, d[j], true, states[j]);
      }
    }
    return block_merge(rule, next);
  }
};

template <typename Rule>
struct BlockPartners<Rule, false> {
  template <typename T>
  static __device__ typename Rule::State fold(
      const Rule&, int self, int, T, const T*, const MeasuredRow<T>&,
      const typename Rule::State* states) {
    return states[self];
  }
};

// A block an anchor: its state once it has met the states of its class, and its
// loss.
template <typename Rule, typename T>
__global__ void fold_partners(const Rule rule, const AnchorStrip<T> strip,
                              const typename Rule::State* states,
                              typename Rule::State* next_states,
                              double* losses) {
  const int anchor = strip.first + blockIdx.x;
  T* v = strip.v + static_cast<size_t>(blockIdx.x) * strip.n;
  const MeasuredRow<T> d = block_measure_row(strip.gram, anchor, strip.n, v);
  const typename Rule::State state = BlockPartners<Rule, Rule::kPartners>::fold(
      rule, anchor, strip.n, strip.anchor_labels[anchor], strip.labels, d,
      states);
  if (threadIdx.x == 0) {
    next_states[anchor] = state;
    write_loss(rule, state, anchor, losses);
  }
}

// A block an anchor, which has its state: v becomes gram_weight of the
// derivatives by this anchor.
template <typename Rule, typename T>
__global__ void slope_rows(const Rule rule, const AnchorStrip<T> strip,
                           const BatchTotals* totals,
                           const typename Rule::State* states) {
  Rule met = rule;
  BlockMeetBatch<Rule, Rule::kMeetsBatch>::meet(totals, &met);
  const int anchor = strip.first + blockIdx.x;
  T* v = strip.v + static_cast<size_t>(blockIdx.x) * strip.n;
  const MeasuredRow<T> d = block_measure_row(strip.gram, anchor, strip.n, v);
  BlockSlopes<Rule, Rule::kPartners>::write(
      met, strip, strip.self < 0 ? -1 : anchor, strip.anchor_labels[anchor], d,
      states[anchor], v);
}

// A thread a column of kPairRows rows, which have been seen: v becomes
// gram_weight of the derivatives by both anchors of a pair. The matrix is
// symmetric: sums[b][j], where it is asked for, is what row j has in the b-th
// kPairRows columns.
template <typename Rule, typename T>
__global__ void slope_pairs(const Rule rule, const AnchorStrip<T> strip,
                            const int rows, const BatchTotals* totals,
                            const typename Rule::State* states) {
  Rule met = rule;
  BlockMeetBatch<Rule, Rule::kMeetsBatch>::meet(totals, &met);
  const int j = blockIdx.x * kBlockThreads + threadIdx.x;
  if (j >= strip.n) {
    return;
  }
  const typename Rule::State own = states[j];
  const T label = strip.labels[j];
  T sum = 0;
  const int begin = blockIdx.y * kPairRows;
  const int end = min(rows, begin + kPairRows);
  for (int r = begin; r < end; ++r) {
    const int i = strip.first + r;
    T* v = strip.v + static_cast<size_t>(r) * strip.n;
    T slope = 0;
    if (i != j) {
      const T measure = measured_row(strip.gram, i, v)[j];
      slope = gram_weight(
          rule.measure(), measure,
          BlockSlopes<Rule, Rule::kPartners>::both(
              met, measure, strip.labels[i] == label, states[i], own));
    }
    v[j] = slope;
    sum += slope;
  }
  if (strip.sums) {
    strip.sums[static_cast<size_t>(blockIdx.y) * strip.n + j] = sum;
  }
}

// The launches, for anchors first ... first + rows. slope_pairs needs rows that
// have been seen.

template <typename Rule, typename T>
void launch_fold_rows(const Rule& rule, const AnchorStrip<T>& strip, int rows,
                      bool write, typename Rule::State* states, PairSums* pairs,
                      double* losses) {
  fold_rows<Rule, T>  // NOLINT_NEXT_LINE(whitespace/operators)
      <<<rows, kBlockThreads>>>(rule, strip, write, states, pairs, losses);
}

template <typename Rule, typename T>
void launch_fold_partners(const Rule& rule, const AnchorStrip<T>& strip,
                          int rows, const typename Rule::State* states,
                          typename Rule::State* next_states, double* losses) {
  if (Rule::kPartners) {
    fold_partners<Rule, T>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<rows, kBlockThreads>>>(rule, strip, states, next_states, losses);
  }
}

template <typename Rule>
void launch_total_states(const Rule& rule, int n,
                         const typename Rule::State* states,
                         BatchTotals* totals, double* losses) {
  if (Rule::kMeetsBatch) {
    total_states<Rule>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<1, kBlockThreads>>>(rule, n, states, totals, losses);
  }
}

template <typename Rule, typename T>
void launch_slope_rows(const Rule& rule, const AnchorStrip<T>& strip, int rows,
                       const BatchTotals* totals,
                       const typename Rule::State* states) {
  slope_rows<Rule, T>  // NOLINT_NEXT_LINE(whitespace/operators)
      <<<rows, kBlockThreads>>>(rule, strip, totals, states);
}

template <typename Rule, typename T>
void launch_slope_pairs(const Rule& rule, const AnchorStrip<T>& strip, int rows,
                        const BatchTotals* totals,
                        const typename Rule::State* states) {
  if (has_close_rows(strip.gram) && !strip.gram.seen) {
    measure_row<T>  // NOLINT_NEXT_LINE(whitespace/operators)
        <<<rows, kBlockThreads>>>(strip.gram, strip.first, strip.n, strip.v);
  }
  const dim3 grid((strip.n + kBlockThreads - 1) / kBlockThreads,
                  pair_parts(rows));
  slope_pairs<Rule, T>  // NOLINT_NEXT_LINE(whitespace/operators)
      <<<grid, kBlockThreads>>>(rule, strip, rows, totals, states);
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_BATCH_ROWS_CUH_
