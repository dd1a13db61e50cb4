#ifndef CAFFE_METRIC_TRIPLET_ALL_CUH_
#define CAFFE_METRIC_TRIPLET_ALL_CUH_

#include "caffe_metric/block.cuh"
#include "caffe_metric/triplet_all.hpp"

// Kernels for the loss over every triplet of a batch: see triplet_all.hpp. A
// row of distances becomes a row of derivatives, and kTripletSums sums.

namespace caffe_metric {

// loss, triplets, triplets with a loss > 0, d_ap, d_an, non-finite distances
const int kTripletSums = 6;

inline __device__ void write_triplet_sums(double loss, double selected,
                                          double active, double d_ap,
                                          double d_an, double* sums) {
  if (threadIdx.x == 0) {
    sums[0] = loss;
    sums[1] = selected;
    sums[2] = active;
    sums[3] = d_ap;
    sums[4] = d_an;
    sums[5] = 0;
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
// to the blocks. A block's scratch: `room` thresholds, room a power of 2 >= n;
// n sums; n + 1 counts.
template <typename T>
__global__ void hinge_rows(const T margin, const bool use_pair, const int first,
                           const int rows, const int n, const int room,
                           const T* distances, const T* labels,
                           T* threshold_scratch, double* sum_scratch,
                           int* count_scratch, T* slopes,
                           double* triplet_sums) {
  T* thresholds = threshold_scratch + static_cast<size_t>(blockIdx.x) * room;
  double* beyond = sum_scratch + static_cast<size_t>(blockIdx.x) * n;
  int* placed = count_scratch + static_cast<size_t>(blockIdx.x) * (n + 1);
  for (int row = blockIdx.x; row < rows; row += gridDim.x) {
    const int anchor = first + row;
    const T label = labels[anchor];
    const T* d = distances + static_cast<size_t>(row) * n;
    T* slope = slopes + static_cast<size_t>(row) * n;
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
    double d_ap = 0;
    double d_an = 0;
    for (int j = threadIdx.x; j < n; j += kBlockThreads) {
      slope[j] = 0;
      if (labels[j] != label) {
        const int place = upper_place(positives, thresholds, d[j]);
        const int count = positives - place;
        // Integers: the order of the additions does not show.
        atomicAdd(&placed[place], 1);
        d_an += d[j];
        if (count > 0) {
          slope[j] = -count;
          loss += beyond[count - 1] - static_cast<double>(count) * d[j];
          active += count;
        }
      }
    }
    __syncthreads();
    block_scan(positives + 1, placed);
    for (int j = threadIdx.x; j < n; j += kBlockThreads) {
      if (j != anchor && labels[j] == label) {
        // Negatives before this threshold: those placed at most there.
        const int place = upper_place(positives, thresholds, d[j] + margin);
        slope[j] = placed[place - 1] + (use_pair ? negatives : 0);
        d_ap += d[j];
      }
    }
    loss = block_sum(loss);
    active = block_sum(active);
    d_ap = block_sum(d_ap);
    d_an = block_sum(d_an);
    loss += use_pair ? d_ap * negatives : 0;
    write_triplet_sums(
        loss, static_cast<double>(positives) * negatives, active,
        d_ap * negatives, d_an * positives,
        triplet_sums + static_cast<size_t>(anchor) * kTripletSums);
  }
}

// What loss_of_all does: a block a row, from row `first` on. With swap, rows
// of other anchors are read, so the strip is the whole matrix; the terms that
// land on this row, being nearer to its negatives than their own anchors are,
// are computed here once more instead of written by those.
template <typename T>
__global__ void loss_row(const TripletRule<T> rule, const bool swap,
                         const bool use_pair, const int first, const int n,
                         const T* distances, const T* labels, T* slopes,
                         double* triplet_sums) {
  const int r = first + blockIdx.x;
  const T label = labels[r];
  const T* d = distances + static_cast<size_t>(blockIdx.x) * n;
  T* slope = slopes + static_cast<size_t>(blockIdx.x) * n;
  const int negatives =
      block_count(n, [=](int j) { return labels[j] != label; });
  int positives = 0;
  double loss = 0;
  double active = 0;
  double d_ap = 0;
  double d_an = 0;
  for (int j = threadIdx.x; j < n; j += kBlockThreads) {
    slope[j] = 0;
  }
  __syncthreads();
  for (int q = 0; q < n; ++q) {
    if (q == r || labels[q] != label) {
      continue;
    }
    ++positives;
    d_ap += d[q];
    const T* d_q = swap ? distances + static_cast<size_t>(q) * n : d;
    T slope_q = 0;
    for (int j = threadIdx.x; j < n; j += kBlockThreads) {
      if (labels[j] == label) {
        continue;
      }
      const bool swapped = swap && takes_swapped(d[j], d_q[j]);
      const T d_j = swapped ? d_q[j] : d[j];
      const TripletTerm<T> term = triplet_term(rule, d[q], d_j);
      loss += term.loss;
      active += term.loss > 0;
      d_an += d_j;
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
  d_an = block_sum(d_an);
  loss += use_pair ? d_ap * negatives : 0;
  write_triplet_sums(loss, static_cast<double>(positives) * negatives, active,
                     d_ap * negatives, d_an,
                     triplet_sums + static_cast<size_t>(r) * kTripletSums);
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_TRIPLET_ALL_CUH_
