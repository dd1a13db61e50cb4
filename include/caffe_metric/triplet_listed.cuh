#ifndef CAFFE_METRIC_TRIPLET_LISTED_CUH_
#define CAFFE_METRIC_TRIPLET_LISTED_CUH_

#include "caffe_metric/gram.cuh"
#include "caffe_metric/triplet_listed.hpp"

// Kernels for triplets whose rows are given: of three matrices, triplet t is
// their rows t; of one, with group_size > 0, group_size rows are an anchor, its
// positive and its negatives.

namespace caffe_metric {

// loss, triplets with a loss > 0, d_ap, d_an, distances that are not finite
const int kListedSums = 5;

struct RowTriplet {
  int anchor, positive, negative;
};

inline __device__ RowTriplet listed_rows(int group_size, int t) {
  if (group_size == 0) {
    const RowTriplet rows = {t, t, t};
    return rows;
  }
  const int negatives = group_size - 2;
  const int anchor = t / negatives * group_size;
  const RowTriplet rows = {anchor, anchor + 1, anchor + 2 + t % negatives};
  return rows;
}

// `count` triplets dealt out to the blocks: their terms, and a row of sums a
// block.
template <typename T>
__global__ void add_listed_terms(const TripletOptions<T> options,
                                 const int group_size, const int count,
                                 const int dim, const T* anchors,
                                 const T* positives, const T* negatives,
                                 const T* weights, ListedTerm<T>* terms,
                                 double* block_sums) {
  const Metric<T>& metric = options.metric;
  double loss = 0;
  int active = 0;
  double d_ap = 0;
  double d_an = 0;
  int not_finite = 0;
  for (int t = blockIdx.x; t < count; t += gridDim.x) {
    const RowTriplet rows = listed_rows(group_size, t);
    const T* a = anchors + static_cast<size_t>(rows.anchor) * dim;
    const T* p = positives + static_cast<size_t>(rows.positive) * dim;
    const T* n = negatives + static_cast<size_t>(rows.negative) * dim;
    const DistanceSums<T> ap = block_distance_sums(metric, dim, a, p);
    const DistanceSums<T> an = block_distance_sums(metric, dim, a, n);
    DistanceSums<T> pn = an;
    if (options.swap) {
      pn = block_distance_sums(metric, dim, p, n);
    }
    // The negatives of a group share one pair.
    const bool new_pair = group_size == 0 || t % (group_size - 2) == 0;
    ListedTerm<T> term;
    const ListedLoss<T> found = listed_loss(
        options, ap, an, pn, weights ? weights[t] : T(1), new_pair, &term);
    if (threadIdx.x == 0) {
      terms[t] = term;
    }
    loss += found.loss;
    active += found.rule > 0;
    d_ap += found.d_ap;
    d_an += found.d_an;
    not_finite += is_finite(found.d_ap + found.d_an) ? 0 : 1;
  }
  if (threadIdx.x == 0) {
    double* sums = block_sums + blockIdx.x * kListedSums;
    sums[0] = loss;
    sums[1] = active;
    sums[2] = d_ap;
    sums[3] = d_an;
    sums[4] = not_finite;
  }
}

// A block a pair of anchor and positive, with its `negatives` negatives: the
// gradient of their rows. NULL diffs do not propagate.
template <typename T>
__global__ void listed_gradient(const Metric<T> metric, const int group_size,
                                const int negatives, const int dim,
                                const ListedTerm<T>* terms, const T* x_a,
                                const T* x_p, const T* x_n, const T* loss_diff,
                                const T normalizer, T* dx_a, T* dx_p, T* dx_n) {
  const T scale = loss_diff[0] / normalizer;
  for (int k = threadIdx.x; k < dim; k += kBlockThreads) {
    T da = 0;
    T dp = 0;
    size_t at_a = 0;
    size_t at_p = 0;
    for (int m = 0; m < negatives; ++m) {
      const int t = blockIdx.x * negatives + m;
      const RowTriplet rows = listed_rows(group_size, t);
      const ListedTerm<T> term = terms[t];
      at_a = static_cast<size_t>(rows.anchor) * dim + k;
      at_p = static_cast<size_t>(rows.positive) * dim + k;
      const size_t at_n = static_cast<size_t>(rows.negative) * dim + k;
      T dn = 0;
      distance_gradient(metric, term.ap, scale * term.weight_ap, x_a[at_a],
                        x_p[at_p], &da, &dp);
      const bool swapped = term.swapped != 0;
      distance_gradient(metric, term.an, scale * term.weight_an,
                        swapped ? x_p[at_p] : x_a[at_a], x_n[at_n],
                        swapped ? &dp : &da, &dn);
      if (dx_n) {
        dx_n[at_n] = dn;
      }
    }
    if (dx_a) {
      dx_a[at_a] = da;
    }
    if (dx_p) {
      dx_p[at_p] = dp;
    }
  }
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_TRIPLET_LISTED_CUH_
