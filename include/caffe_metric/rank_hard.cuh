#ifndef CAFFE_METRIC_RANK_HARD_CUH_
#define CAFFE_METRIC_RANK_HARD_CUH_

#include <stdint.h>

#include <algorithm>

#include "caffe_metric/block.cuh"
#include "caffe_metric/rank_hard.hpp"

// Kernels of RankHardLoss: see rank_hard.hpp for the rule.

namespace caffe_metric {

// Which hinges of a taken negative are > 0.
const int kByAnchor = 1;
const int kByPositive = 2;

// loss, hinges taken, hinges > 0, products that are not finite
const int kGroupSums = 4;

// What decides whether row j is taken for an anchor, step by step: the same as
// rank_negatives in rank_hard.hpp. Smallest s is largest product; lowest index
// on a tie.
template <typename T>
struct RankSelection {
  const T* products;  // the anchor's row of the Gram matrix
  const T* labels;
  T positive, margin, label;
  uint64_t edge;  // the order of the last of the hardest,
  int last_tie;   // and the last row of that order among them
  uint64_t hard_stream, random_stream;
  int hard_number, random_number;
  uint64_t hard_edge, random_edge;  // the last numbers that are drawn

  __device__ bool candidate(int j) const {
    return rank_violation(margin, positive, -products[j]) > 0 &&
           labels[j] != label;
  }
  __device__ uint64_t order(int j) const { return descending_key(products[j]); }
  __device__ bool before_edge(int j) const {
    return candidate(j) && order(j) < edge;
  }
  __device__ bool at_edge(int j) const {
    return candidate(j) && order(j) == edge;
  }
  __device__ bool hard(int j) const {
    return before_edge(j) || (at_edge(j) && j <= last_tie);
  }
  __device__ uint64_t hard_draw(int j) const { return draw(hard_stream, j); }
  __device__ bool drawn_hard(int j) const {
    return hard_number > 0 && hard(j) && hard_draw(j) <= hard_edge;
  }
  __device__ bool left(int j) const { return candidate(j) && !drawn_hard(j); }
  __device__ uint64_t random_draw(int j) const {
    return draw(random_stream, j);
  }
  __device__ bool drawn(int j) const {
    return drawn_hard(j) ||
           (random_number > 0 && left(j) && random_draw(j) <= random_edge);
  }
};

// The negatives of an anchor, ascending, by all threads of a block; how many.
template <typename T>
__device__ int block_take_negatives(const RankDraw& number, uint64_t key,
                                    int anchor, int n, RankSelection<T> s,
                                    int* out) {
  const int candidates = block_count(n, [=](int j) { return s.candidate(j); });
  if (candidates <= number.neg_num) {
    return block_list(
        n, [=](int j) { return s.candidate(j); },
        [=](int k, int j) { out[k] = j; });
  }
  s.edge = block_kth_smallest(
      n, number.neg_num, [=](int j) { return s.candidate(j); },
      [=](int j) { return s.order(j); });
  const int before = block_count(n, [=](int j) { return s.before_edge(j); });
  s.last_tie = block_kth_smallest(
      n, number.neg_num - before, [=](int j) { return s.at_edge(j); },
      [](int j) { return static_cast<uint64_t>(j); });
  s.hard_stream = stream_of(key, anchor, kHardStream);
  s.hard_number = min(number.hard_number, number.neg_num);
  if (s.hard_number > 0) {
    s.hard_edge = block_kth_smallest(
        n, s.hard_number, [=](int j) { return s.hard(j); },
        [=](int j) { return s.hard_draw(j); });
  }
  s.random_stream = stream_of(key, anchor, kRandomStream);
  s.random_number = min(number.rand_number, candidates - s.hard_number);
  if (s.random_number > 0) {
    s.random_edge = block_kth_smallest(
        n, s.random_number, [=](int j) { return s.left(j); },
        [=](int j) { return s.random_draw(j); });
  }
  return block_list(
      n, [=](int j) { return s.drawn(j); }, [=](int k, int j) { out[k] = j; });
}

// A block a group: the negatives of its anchor, ascending, then -1, its hinges
// and their sums.
template <typename T>
__global__ void rank_groups(const RankDraw number, const T margin,
                            const uint64_t key, const int pair_size,
                            const int first_group, const int n, const int dim,
                            const int max_taken, const T* products, const T* x,
                            const T* labels, int* taken, int* hinges,
                            double* sums) {
  const int group = first_group + blockIdx.x;
  const int anchor = group * pair_size;
  const T* row = products + static_cast<size_t>(blockIdx.x) * n;
  int* out = taken + static_cast<size_t>(group) * max_taken;
  int* out_hinges = hinges + static_cast<size_t>(group) * max_taken;
  RankSelection<T> selection;
  selection.products = row;
  selection.labels = labels;
  selection.positive = -row[anchor + 1];
  selection.margin = margin;
  selection.label = labels[anchor];
  const int count =
      block_take_negatives(number, key, anchor, n, selection, out);
  for (int k = count + threadIdx.x; k < max_taken; k += kBlockThreads) {
    out[k] = -1;
  }
  double loss = 0;
  int active = 0;
  for (int k = 0; k < count; ++k) {
    const int j = out[k];
    const T product = block_dot(dim, x + static_cast<size_t>(anchor + 1) * dim,
                                x + static_cast<size_t>(j) * dim);
    const T by_anchor = rank_violation(margin, selection.positive, -row[j]);
    const T by_positive = rank_violation(margin, selection.positive, -product);
    if (threadIdx.x == 0) {
      out_hinges[k] =
          (by_anchor > 0 ? kByAnchor : 0) | (by_positive > 0 ? kByPositive : 0);
    }
    loss += by_anchor + max(by_positive, T(0));
    active += (by_anchor > 0) + (by_positive > 0);
  }
  T bad = 0;
  for (int j = threadIdx.x; j < n; j += kBlockThreads) {
    bad += row[j] - row[j];  // 0, or NaN
  }
  bad = block_sum(bad);
  if (threadIdx.x == 0) {
    sums[group * kGroupSums] = loss;
    sums[group * kGroupSums + 1] = 2. * count;
    sums[group * kGroupSums + 2] = active;
    sums[group * kGroupSums + 3] = bad == 0 ? 0 : 1;
  }
}

// A block a row: its gradient, as an anchor or a positive, and as a negative of
// all groups that took it, in their order.
template <typename T>
__global__ void rank_gradient(const int groups, const int pair_size,
                              const int dim, const int max_taken,
                              const int* taken, const int* hinges, const T* x,
                              const T* loss_diff, const T normalizer, T* dx) {
  __shared__ int found[kBlockThreads];
  const T scale = loss_diff[0] / normalizer;
  const int r = blockIdx.x;
  const int role = r % pair_size;
  T* dr = dx + static_cast<size_t>(r) * dim;
  for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
    dr[k] = 0;
  }
  if (role < 2) {
    const int group = r / pair_size;
    const T* partner = x + static_cast<size_t>(role == 0 ? r + 1 : r - 1) * dim;
    const int mine = role == 0 ? kByAnchor : kByPositive;
    for (int slot = group * max_taken; slot < (group + 1) * max_taken; ++slot) {
      if (taken[slot] < 0) {
        break;
      }
      const T* negative = x + static_cast<size_t>(taken[slot]) * dim;
      const T of_negative = hinges[slot] & mine ? scale : T(0);
      const T of_partner = scale * ((hinges[slot] & kByAnchor ? 1 : 0) +
                                    (hinges[slot] & kByPositive ? 1 : 0));
      for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
        dr[k] += of_negative * negative[k] - of_partner * partner[k];
      }
    }
  }
  const int slots = groups * max_taken;
  for (int begin = 0; begin < slots; begin += kBlockThreads) {
    const int slot = begin + threadIdx.x;
    const bool is_r = slot < slots && taken[slot] == r;
    if (!__syncthreads_or(is_r)) {
      continue;
    }
    found[threadIdx.x] = is_r;
    __syncthreads();
    for (int s = 0; s < kBlockThreads; ++s) {
      if (found[s]) {
        const int bits = hinges[begin + s];
        const T of_anchor = bits & kByAnchor ? scale : T(0);
        const T of_positive = bits & kByPositive ? scale : T(0);
        const int group = (begin + s) / max_taken;
        const T* anchor = x + static_cast<size_t>(group) * pair_size * dim;
        for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
          dr[k] += of_anchor * anchor[k] + of_positive * anchor[dim + k];
        }
      }
    }
    __syncthreads();
  }
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_RANK_HARD_CUH_
