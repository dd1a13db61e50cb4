#ifndef CAFFE_METRIC_TRIPLET_ALL_CUH_
#define CAFFE_METRIC_TRIPLET_ALL_CUH_

#include "caffe_metric/block.cuh"
#include "caffe_metric/gram.cuh"
#include "caffe_metric/pairs.cuh"
#include "caffe_metric/triplet_all.hpp"

// Kernels for the loss over every triplet of a batch: see triplet_all.hpp. A
// row of distances becomes a row of derivatives, and kAnchorSums sums. A row
// whose pairs' sums are not finite is left: its distances would lead astray.

namespace caffe_metric {

// loss, triplets, triplets with a loss > 0
const int kAnchorSums = 3;

inline __device__ void write_anchor_sums(double loss, double selected,
                                         double active, double* sums) {
  if (threadIdx.x == 0) {
    sums[0] = loss;
    sums[1] = selected;
    sums[2] = active;
  }
}

// How many of n ascending values are <= x.
template <typename T>
CAFFE_METRIC_HD int upper_place(int n, const T* values, T x) {
  int low = 0;
  int high = n;
  while (low < high) {
    const int middle = low + (high - low) / 2;
    if (values[middle] <= x) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// What hinge_of_all does, for the anchors `first` ... first + rows, dealt out
// to the blocks, and gram_weight; slopes may be distances. A block's scratch:
// `room` thresholds, room a power of 2 >= n; n sums; n + 1 counts.
template <typename T>
__global__ void hinge_rows(const T margin, const bool use_pair,
                           const GramRows<T> gram, const int first,
                           const int rows, const int n, const int room,
                           T* distances, const T* __restrict__ labels,
                           PairSums* pairs, T* threshold_scratch,
                           double* sum_scratch, int* count_scratch, T* slopes,
                           double* anchor_sums) {
  const Distance distance = gram.metric.distance;
  T* thresholds = threshold_scratch + static_cast<size_t>(blockIdx.x) * room;
  double* beyond = sum_scratch + static_cast<size_t>(blockIdx.x) * n;
  int* placed = count_scratch + static_cast<size_t>(blockIdx.x) * (n + 1);
  for (int row = blockIdx.x; row < rows; row += gridDim.x) {
    const int anchor = first + row;
    double* sums = anchor_sums + static_cast<size_t>(anchor) * kAnchorSums;
    const T label = labels[anchor];
    T* slope = slopes + static_cast<size_t>(row) * n;
    const MeasuredRow<T> d = block_measure_row(
        gram, anchor, n, distances + static_cast<size_t>(row) * n);
    const PairSums own =
        block_write_pair_sums(anchor, n, d, label, labels, pairs);
    if (!own.is_finite()) {
      write_anchor_sums(0, 0, 0, sums);
      continue;
    }
    const int positives = block_list(
        n, [=](int j) { return j != anchor && labels[j] == label; },
        [=](int k, int j) { thresholds[k] = d[j] + margin; });
    const int negatives =
        block_count(n, [=](int j) { return labels[j] != label; });
    block_sort(positives, thresholds);
    // beyond[k] = the sum of the k + 1 largest thresholds.
    for (int k = threadIdx.x; k < positives; k += kBlockThreads) {
      beyond[k] = thresholds[positives - 1 - k];
    }
    for (int k = threadIdx.x; k <= positives; k += kBlockThreads) {
      placed[k] = 0;
    }
    __syncthreads();
    block_scan(positives, beyond);
    double loss = 0;
    double active = 0;
    for (int j = threadIdx.x; j < n; j += kBlockThreads) {
      if (labels[j] != label) {
        const T d_an = d[j];
        const int place = upper_place(positives, thresholds, d_an);
        const int count = positives - place;
        // Integers: the order of the additions does not show.
        atomicAdd(&placed[place], 1);
        if (count > 0) {
          loss += beyond[count - 1] - static_cast<double>(count) * d_an;
          active += count;
        }
        slope[j] = count > 0 ? gram_weight(distance, d_an, T(-count)) : T(0);
      }
    }
    __syncthreads();
    block_scan(positives + 1, placed);
    for (int j = threadIdx.x; j < n; j += kBlockThreads) {
      if (j == anchor) {
        slope[j] = 0;
      } else if (labels[j] == label) {
        // Negatives before this threshold: those placed at most there.
        const int place = upper_place(positives, thresholds, d[j] + margin);
        const T count = placed[place - 1] + (use_pair ? negatives : 0);
        slope[j] = gram_weight(distance, d[j], count);
      }
    }
    loss = block_sum(loss);
    active = block_sum(active);
    loss += use_pair ? own.of_same * negatives : 0;
    write_anchor_sums(loss, static_cast<double>(positives) * negatives, active,
                      sums);
  }
}

// What loss_of_all does, and gram_weight: a block a row, from row `first` on.
// With swap, rows of other anchors are read, so the strip is the whole matrix,
// whose rows have been seen; the terms that land on this row, being nearer to
// its negatives than their own anchors are, are computed here once more instead
// of written by those.
template <typename T>
__global__ void loss_row(const TripletRule<T> rule, const bool swap,
                         const bool use_pair, const GramRows<T> gram,
                         const int first, const int n, T* distances,
                         const T* __restrict__ labels, PairSums* pairs,
                         T* slopes, double* anchor_sums) {
  const int r = first + blockIdx.x;
  const T label = labels[r];
  const MeasuredRow<T> d = block_measure_row(
      gram, r, n, distances + static_cast<size_t>(blockIdx.x) * n);
  const PairSums own = block_write_pair_sums(r, n, d, label, labels, pairs);
  T* slope = slopes + static_cast<size_t>(blockIdx.x) * n;
  const int negatives =
      block_count(n, [=](int j) { return labels[j] != label; });
  int positives = 0;
  double loss = 0;
  double active = 0;
  for (int j = threadIdx.x; j < n; j += kBlockThreads) {
    slope[j] = 0;
  }
  __syncthreads();
  for (int q = 0; q < n; ++q) {
    if (q == r || labels[q] != label) {
      continue;
    }
    ++positives;
    const MeasuredRow<T> d_q =
        swap ? measured_row(gram, q, distances + static_cast<size_t>(q) * n)
             : d;
    T slope_q = 0;
    for (int j = threadIdx.x; j < n; j += kBlockThreads) {
      if (labels[j] == label) {
        continue;
      }
      const bool swapped = swap && takes_swapped(d[j], d_q[j]);
      const TripletTerm<T> term =
          triplet_term(rule, d[q], swapped ? d_q[j] : d[j]);
      loss += term.loss;
      active += term.loss > 0;
      slope_q += term.slope_ap;
      if (!swapped) {
        slope[j] += term.slope_an;
      }
      if (swap && takes_swapped(d_q[j], d[j])) {
        slope[j] += triplet_term(rule, d_q[r], d[j]).slope_an;
      }
    }
    slope_q = block_sum(slope_q);
    if (threadIdx.x == 0) {
      slope[q] = slope_q + (use_pair ? negatives : 0);
    }
  }
  loss = block_sum(loss);
  active = block_sum(active);
  for (int j = threadIdx.x; j < n; j += kBlockThreads) {
    slope[j] = gram_weight(gram.metric.distance, d[j], slope[j]);
  }
  loss += use_pair ? own.of_same * negatives : 0;
  write_anchor_sums(loss, static_cast<double>(positives) * negatives, active,
                    anchor_sums + static_cast<size_t>(r) * kAnchorSums);
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_TRIPLET_ALL_CUH_
