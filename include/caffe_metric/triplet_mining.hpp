#ifndef CAFFE_METRIC_TRIPLET_MINING_HPP_
#define CAFFE_METRIC_TRIPLET_MINING_HPP_

#include <stdint.h>

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

// The candidate with the smallest number in the pair's stream, lowest index
// on a tie; -1 where there is none. d is the anchor's row of n distances.
template <typename T>
inline int draw_negative(Mining mining, T margin, uint64_t key, int anchor,
                         int positive, int n, const T* d, const T* labels) {
  const T d_ap = d[positive];
  const uint64_t stream = stream_of(key, anchor, positive);
  uint64_t least = 0;
  int chosen = -1;
  for (int j = 0; j < n; ++j) {
    if (is_candidate(mining, margin, d_ap, d[j]) &&
        labels[j] != labels[anchor]) {
      const uint64_t number = draw(stream, j);
      if (chosen < 0 || number < least) {
        least = number;
        chosen = j;
      }
    }
  }
  return chosen;
}

// Appends the triplets of one anchor, whose distances to all n rows are d.
template <typename T>
inline void mine_anchor(Mining mining, T margin, uint64_t key, int anchor,
                        int n, const T* d, const T* labels,
                        std::vector<Triplet>* triplets) {
  if (mining == HARDEST) {
    int farthest = -1;
    int closest = -1;
    for (int j = 0; j < n; ++j) {
      if (labels[j] != labels[anchor]) {
        closest = closest < 0 || d[j] < d[closest] ? j : closest;
      } else if (j != anchor) {
        farthest = farthest < 0 || d[j] > d[farthest] ? j : farthest;
      }
    }
    if (farthest >= 0 && closest >= 0) {
      const Triplet triplet = {anchor, farthest, closest};
      triplets->push_back(triplet);
    }
    return;
  }
  for (int p = 0; p < n; ++p) {
    if (p == anchor || labels[p] != labels[anchor]) {
      continue;
    }
    const int negative =
        draw_negative(mining, margin, key, anchor, p, n, d, labels);
    if (negative >= 0) {
      const Triplet triplet = {anchor, p, negative};
      triplets->push_back(triplet);
    }
  }
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_TRIPLET_MINING_HPP_
