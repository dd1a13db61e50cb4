#ifndef CAFFE_METRIC_TRIPLET_MINING_CUH_
#define CAFFE_METRIC_TRIPLET_MINING_CUH_

#include <stdint.h>

#include "caffe_metric/block.cuh"
#include "caffe_metric/gram.cuh"
#include "caffe_metric/pairs.cuh"
#include "caffe_metric/triplet_all.cuh"
#include "caffe_metric/triplet_mining.hpp"

// The triplets that mine_anchor in triplet_mining.hpp finds, and their losses.

namespace caffe_metric {

struct Drawn {
  uint64_t number;
  int index;  // -1: none
};

struct LeastDrawn {
  CAFFE_METRIC_HD Drawn operator()(const Drawn& a, const Drawn& b) const {
    if (a.index < 0 || b.index < 0) {
      return a.index < 0 ? b : a;
    }
    const bool b_first =
        b.number < a.number || (b.number == a.number && b.index < a.index);
    return b_first ? b : a;
  }
};

template <typename T>
struct Farthest {
  T distance;
  int index;  // -1: none
};

template <typename T>
struct FarthestFirst {
  CAFFE_METRIC_HD Farthest<T> operator()(const Farthest<T>& a,
                                         const Farthest<T>& b) const {
    if (a.index < 0 || b.index < 0) {
      return a.index < 0 ? b : a;
    }
    const bool b_first = b.distance > a.distance ||
                         (b.distance == a.distance && b.index < a.index);
    return b_first ? b : a;
  }
};

// SEMIHARD, VIOLATING: the negative of the pair, or -1. d is the anchor's row.
template <typename T>
__device__ int block_draw_negative(Mining mining, T margin, uint64_t key,
                                   int anchor, int positive, int n,
                                   const MeasuredRow<T>& d, const T* labels) {
  const T d_ap = d[positive];
  const T label = labels[anchor];
  const uint64_t stream = stream_of(key, anchor, positive);
  Drawn best = {0, -1};
  for (int j = threadIdx.x; j < n; j += kBlockThreads) {
    if (is_candidate(mining, margin, d_ap, d[j]) && labels[j] != label) {
      const Drawn candidate = {draw(stream, j), j};
      best = LeastDrawn()(best, candidate);
    }
  }
  return block_reduce(best, LeastDrawn()).index;
}

// HARDEST: the anchor's triplet; negative -1 where there is none.
template <typename T>
__device__ Triplet block_hardest(int anchor, int n, const MeasuredRow<T>& d,
                                 const T* labels) {
  const T label = labels[anchor];
  Farthest<T> positive = {0, -1};
  Farthest<T> negative = {0, -1};  // by -d: the closest
  for (int j = threadIdx.x; j < n; j += kBlockThreads) {
    if (labels[j] != label) {
      const Farthest<T> candidate = {-d[j], j};
      negative = FarthestFirst<T>()(negative, candidate);
    } else if (j != anchor) {
      const Farthest<T> candidate = {d[j], j};
      positive = FarthestFirst<T>()(positive, candidate);
    }
  }
  positive = block_reduce(positive, FarthestFirst<T>());
  negative = block_reduce(negative, FarthestFirst<T>());
  const Triplet triplet = {anchor, positive.index,
                           positive.index >= 0 ? negative.index : -1};
  return triplet;
}

// A block an anchor, from anchor `first` on: its distances, the sums of its
// pairs, the losses of its triplets and gram_weight of their derivatives by its
// distances. With swap the strip is the whole matrix, whose rows have been
// seen, and what other anchors' triplets leave on this row is computed here
// once more.
template <typename T>
__global__ void mined_row(const TripletRule<T> rule, const Mining mining,
                          const bool swap, const bool use_pair,
                          const uint64_t key, const GramRows<T> gram,
                          const int first, const int n, T* distances,
                          const T* __restrict__ labels, PairSums* pairs,
                          T* slopes, double* anchor_sums) {
  const int r = first + blockIdx.x;
  const T label = labels[r];
  const Distance distance = gram.metric.distance;
  const MeasuredRow<T> d = block_measure_row(
      gram, r, n, distances + static_cast<size_t>(blockIdx.x) * n);
  block_write_pair_sums(r, n, d, label, labels, pairs);
  T* slope = slopes + static_cast<size_t>(blockIdx.x) * n;
  for (int j = threadIdx.x; j < n; j += kBlockThreads) {
    slope[j] = 0;
  }
  __syncthreads();
  Triplet hardest = {r, -1, -1};
  if (mining == HARDEST) {
    hardest = block_hardest(r, n, d, labels);
  }
  const int negatives =
      block_count(n, [=](int j) { return labels[j] != label; });
  double loss = 0;
  int selected = 0;
  int active = 0;
  for (int q = 0; negatives > 0 && q < n; ++q) {
    if (q == r || labels[q] != label) {
      continue;
    }
    const MeasuredRow<T> d_q =
        swap ? measured_row(gram, q, distances + static_cast<size_t>(q) * n)
             : d;
    // The triplet of r and q, and with swap that of q and r.
    int own = q == hardest.positive ? hardest.negative : -1;
    int others = -1;
    if (mining != HARDEST) {
      own = block_draw_negative(mining, rule.margin, key, r, q, n, d, labels);
    }
    if (swap && mining != HARDEST) {
      others =
          block_draw_negative(mining, rule.margin, key, q, r, n, d_q, labels);
    } else if (swap) {
      const Triplet found = block_hardest(q, n, d_q, labels);
      others = found.positive == r ? found.negative : -1;
    }
    if (own >= 0) {
      const bool swapped = swap && takes_swapped(d[own], d_q[own]);
      const TripletTerm<T> term =
          triplet_term(rule, d[q], swapped ? d_q[own] : d[own]);
      loss += term.loss + (use_pair ? d[q] : T(0));
      selected += 1;
      active += term.loss > 0;
      if (threadIdx.x == 0) {
        slope[q] += gram_weight(distance, d[q],
                                term.slope_ap + (use_pair ? T(1) : T(0)));
        slope[own] +=
            swapped ? T(0) : gram_weight(distance, d[own], term.slope_an);
      }
    }
    if (others >= 0 && takes_swapped(d_q[others], d[others]) &&
        threadIdx.x == 0) {
      slope[others] += gram_weight(
          distance, d[others], triplet_term(rule, d_q[r], d[others]).slope_an);
    }
  }
  write_anchor_sums(loss, selected, active,
                    anchor_sums + static_cast<size_t>(r) * kAnchorSums);
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_TRIPLET_MINING_CUH_
