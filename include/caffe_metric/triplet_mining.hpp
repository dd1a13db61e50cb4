#ifndef CAFFE_METRIC_TRIPLET_MINING_HPP_
#define CAFFE_METRIC_TRIPLET_MINING_HPP_

#include <stdint.h>

#include <cstddef>
#include <vector>

#include "caffe_metric/macros.hpp"
#include "caffe_metric/random.hpp"

// Which triplets of a batch meet, of a row of distances d(a, .) and the
// labels. For every anchor a and every positive p != a of its class:
//
//   SEMIHARD   one negative at random with d_ap < d_an < d_ap + margin
//   VIOLATING  one negative at random with d_an < d_ap + margin
//   HARDEST    one triplet an anchor: farthest positive, closest negative
//
// ALL, every negative, is not listed but summed: see triplet_all.hpp.

namespace caffe_metric {

// The numbers are those of TripletLossParameter in proto/.
enum Mining { ALL = 0, SEMIHARD = 1, VIOLATING = 2, HARDEST = 3 };

struct Triplet {
  int anchor, positive, negative;
};

// Whether a negative at distance d_an is drawn from, for SEMIHARD and
// VIOLATING.
template <typename T>
CAFFE_METRIC_HD bool is_candidate(Mining mining, T margin, T d_ap, T d_an) {
  return d_an < d_ap + margin && (mining == VIOLATING || d_ap < d_an);
}

// The rows that an anchor meets.
template <typename T>
inline void split_by_class(int anchor, int n, const T* labels,
                           std::vector<int>* positives,
                           std::vector<int>* negatives) {
  positives->clear();
  negatives->clear();
  for (int j = 0; j < n; ++j) {
    if (labels[j] != labels[anchor]) {
      negatives->push_back(j);
    } else if (j != anchor) {
      positives->push_back(j);
    }
  }
}

// The candidate with the smallest number in the pair's stream, lowest index
// on a tie; -1 where there is none. d is the anchor's row of distances.
template <typename T>
inline int draw_negative(Mining mining, T margin, uint64_t key, int anchor,
                         int positive, const std::vector<int>& negatives,
                         const T* d) {
  const T d_ap = d[positive];
  const uint64_t stream = stream_of(key, anchor, positive);
  uint64_t least = 0;
  int chosen = -1;
  for (size_t i = 0; i < negatives.size(); ++i) {
    const int j = negatives[i];
    if (is_candidate(mining, margin, d_ap, d[j])) {
      const uint64_t number = draw(stream, j);
      if (chosen < 0 || number < least) {
        least = number;
        chosen = j;
      }
    }
  }
  return chosen;
}

// Appends the triplets of one anchor, whose row of distances is d, and which
// meets these rows. Not for ALL.
template <typename T>
inline void mine_anchor(Mining mining, T margin, uint64_t key, int anchor,
                        const T* d, const std::vector<int>& positives,
                        const std::vector<int>& negatives,
                        std::vector<Triplet>* triplets) {
  if (positives.empty() || negatives.empty()) {
    return;
  }
  if (mining == HARDEST) {
    int farthest = positives[0];
    int closest = negatives[0];
    for (size_t i = 1; i < positives.size(); ++i) {
      farthest = d[positives[i]] > d[farthest] ? positives[i] : farthest;
    }
    for (size_t i = 1; i < negatives.size(); ++i) {
      closest = d[negatives[i]] < d[closest] ? negatives[i] : closest;
    }
    const Triplet triplet = {anchor, farthest, closest};
    triplets->push_back(triplet);
    return;
  }
  for (size_t i = 0; i < positives.size(); ++i) {
    const int negative =
        draw_negative(mining, margin, key, anchor, positives[i], negatives, d);
    if (negative >= 0) {
      const Triplet triplet = {anchor, positives[i], negative};
      triplets->push_back(triplet);
    }
  }
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_TRIPLET_MINING_HPP_
