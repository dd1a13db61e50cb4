#ifndef CAFFE_METRIC_TRIPLET_MINING_CUH_
#define CAFFE_METRIC_TRIPLET_MINING_CUH_

#include <stdint.h>

#include <algorithm>

#include "caffe_metric/block.cuh"
#include "caffe_metric/triplet_mining.hpp"

// Kernels that mine triplets: the same ones as mine_anchor in
// triplet_mining.hpp. There is a place for every pair (anchor, positive), an
// anchor's from place offsets[anchor] on; a pair without a negative has -1.

namespace caffe_metric {

// A block an anchor: counts[anchor] = its positives.
template <typename T>
__global__ void count_pairs(const int n, const T* labels, int* counts) {
  const int anchor = blockIdx.x;
  const T label = labels[anchor];
  const int count =
      block_count(n, [=](int j) { return j != anchor && labels[j] == label; });
  if (threadIdx.x == 0) {
    counts[anchor] = count;
  }
}

// One block: counts become offsets in place, offsets[n] their total.
static __global__ void counts_to_offsets(const int n, int* counts) {
  int begin = 0;
  for (int first = 0; first < n; first += kBlockThreads) {
    const int i = first + threadIdx.x;
    int total;
    const int before = block_offset(i < n ? counts[i] : 0, &total);
    if (i < n) {
      counts[i] = begin + before;
    }
    begin += total;
  }
  if (threadIdx.x == 0) {
    counts[n] = begin;
  }
}

// A block an anchor: its pairs. What is beyond `capacity` is left out.
template <typename T>
__global__ void list_pairs(const int n, const int capacity, const T* labels,
                           const int* offsets, Triplet* triplets) {
  const int anchor = blockIdx.x;
  const T label = labels[anchor];
  const int begin = offsets[anchor];
  block_list(
      n, [=](int j) { return j != anchor && labels[j] == label; },
      [=](int k, int j) {
        if (begin + k < capacity) {
          const Triplet triplet = {anchor, j, -1};
          triplets[begin + k] = triplet;
        }
      });
}

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

// Finds the negatives of the pairs of anchors [first, end), whose rows of
// distances are `distances`. The pairs are dealt out to the blocks.
template <typename T>
__global__ void draw_negatives(const Mining mining, const T margin,
                               const uint64_t key, const int first,
                               const int end, const int n, const int capacity,
                               const T* distances, const T* labels,
                               const int* offsets, Triplet* triplets) {
  const int stop = min(offsets[end], capacity);
  for (int t = offsets[first] + blockIdx.x; t < stop; t += gridDim.x) {
    const int anchor = triplets[t].anchor;
    const int positive = triplets[t].positive;
    const T* d = distances + static_cast<size_t>(anchor - first) * n;
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
    best = block_reduce(best, LeastDrawn());
    if (threadIdx.x == 0) {
      triplets[t].negative = best.index;
    }
  }
}

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

// HARDEST: a block an anchor, from anchor `first` on; one place each.
template <typename T>
__global__ void find_hardest(const int first, const int n, const T* distances,
                             const T* labels, Triplet* triplets) {
  const int anchor = first + blockIdx.x;
  const T* d = distances + static_cast<size_t>(blockIdx.x) * n;
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
  if (threadIdx.x == 0) {
    const bool both = positive.index >= 0 && negative.index >= 0;
    const Triplet triplet = {anchor, positive.index,
                             both ? negative.index : -1};
    triplets[anchor] = triplet;
  }
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_TRIPLET_MINING_CUH_
