#ifndef CAFFE_METRIC_TRIPLET_ALL_HPP_
#define CAFFE_METRIC_TRIPLET_ALL_HPP_

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "caffe_metric/triplet_rule.hpp"
#include "caffe_metric/triplet_stats.hpp"

// The loss over every triplet (a, p, n) of a batch, an anchor at a time, and
// its derivative by every distance d(a, j).
//
// With HINGE and without swap, K positives and M negatives an anchor take
// O(K log K + M log K) instead of O(K M) operations: a triplet is active
// where d_an < t_p = d_ap + margin. Sort the thresholds t; place each negative
// among them by binary search; then the loss is sums of thresholds beyond the
// place, and the derivatives are counts.

namespace caffe_metric {

// HINGE without swap. d is the anchor's row of distances; slopes receives the
// derivatives by them, and is zero before.
template <typename T>
inline void hinge_of_all(T margin, const T* d,
                         const std::vector<int>& positives,
                         const std::vector<int>& negatives, T* slopes,
                         TripletStats* stats) {
  const int count = positives.size();
  std::vector<std::pair<T, int>> order(count);
  for (int k = 0; k < count; ++k) {
    order[k] = std::make_pair(d[positives[k]] + margin, positives[k]);
  }
  std::sort(order.begin(), order.end());
  std::vector<T> thresholds(count);
  std::vector<double> sum_beyond(count + 1, 0.);  // sum of thresholds k ...
  for (int k = count - 1; k >= 0; --k) {
    thresholds[k] = order[k].first;
    sum_beyond[k] = sum_beyond[k + 1] + thresholds[k];
  }
  std::vector<int> placed(count + 1, 0);  // negatives before threshold k
  for (size_t i = 0; i < negatives.size(); ++i) {
    const T d_an = d[negatives[i]];
    const int place =
        std::upper_bound(thresholds.begin(), thresholds.end(), d_an) -
        thresholds.begin();
    ++placed[place];
    const int active = count - place;
    if (active > 0) {
      slopes[negatives[i]] -= active;
      stats->loss += sum_beyond[place] - static_cast<double>(active) * d_an;
      stats->active += active;
    }
  }
  int before = 0;
  for (int k = 0; k < count; ++k) {
    before += placed[k];
    slopes[order[k].second] += before;
  }
  stats->selected += static_cast<double>(count) * negatives.size();
}

// What `swap` needs: the distances of all n rows, n x n, and where their
// derivatives go.
template <typename T>
struct SwapMatrices {
  const T* distances;
  T* slopes;
  int n;
};

// One triplet, of row d of its anchor's distances and the row of derivatives;
// `swap` is NULL where it is off.
template <typename T>
inline void add_triplet(const TripletRule<T>& rule, const T* d,
                        const SwapMatrices<T>* swap, int positive, int negative,
                        T* slopes, TripletStats* stats) {
  T d_an = d[negative];
  T* slope_an = slopes + negative;
  if (swap) {
    const size_t pn = static_cast<size_t>(positive) * swap->n + negative;
    if (takes_swapped(d_an, swap->distances[pn])) {
      d_an = swap->distances[pn];
      slope_an = swap->slopes + pn;
    }
  }
  const TripletTerm<T> term = triplet_term(rule, d[positive], d_an);
  slopes[positive] += term.slope_ap;
  *slope_an += term.slope_an;
  stats->loss += term.loss;
  stats->selected += 1;
  stats->active += term.loss > 0;
}

// Any loss, triplet by triplet.
template <typename T>
inline void loss_of_all(const TripletRule<T>& rule, const T* d,
                        const SwapMatrices<T>* swap,
                        const std::vector<int>& positives,
                        const std::vector<int>& negatives, T* slopes,
                        TripletStats* stats) {
  for (size_t i = 0; i < positives.size(); ++i) {
    for (size_t j = 0; j < negatives.size(); ++j) {
      add_triplet(rule, d, swap, positives[i], negatives[j], slopes, stats);
    }
  }
}

// use_pair: d_ap once more for every triplet.
template <typename T>
inline void pairs_of_all(const T* d, const std::vector<int>& positives,
                         const std::vector<int>& negatives, T* slopes,
                         TripletStats* stats) {
  for (size_t i = 0; i < positives.size(); ++i) {
    slopes[positives[i]] += negatives.size();
    stats->loss += static_cast<double>(d[positives[i]]) * negatives.size();
  }
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_TRIPLET_ALL_HPP_
