#ifndef CAFFE_METRIC_TRIPLET_ANCHOR_HPP_
#define CAFFE_METRIC_TRIPLET_ANCHOR_HPP_

#include <stdint.h>

#include <cstddef>
#include <vector>

#include "caffe_metric/pairs.hpp"
#include "caffe_metric/triplet_all.hpp"
#include "caffe_metric/triplet_listed.hpp"
#include "caffe_metric/triplet_mining.hpp"

// The triplets of one anchor of a mined batch: of the anchor's row of distances
// their losses and the derivatives by those distances, on the CPU.

namespace caffe_metric {

// Lists that are used again for each anchor.
struct AnchorWork {
  std::vector<int> positives, negatives;
  std::vector<Triplet> found;
};

// Adds the triplets of `anchor`, whose row of n distances is d, to the stats
// and to the row of derivatives, which is zero before. `swap` is NULL where it
// is off. `key` is of the random draws.
template <typename T>
inline void add_anchor(const TripletOptions<T>& options, Mining mining,
                       uint64_t key, int anchor, int n, const T* d,
                       const T* labels, const SwapMatrices<T>* swap, T* slopes,
                       AnchorWork* work, TripletStats* stats) {
  split_by_class(anchor, n, labels, &work->positives, &work->negatives);
  if (mining == ALL) {
    if (options.rule.type == HINGE && !swap) {
      hinge_of_all(options.rule.margin, d, work->positives, work->negatives,
                   slopes, stats);
    } else {
      loss_of_all(options.rule, d, swap, work->positives, work->negatives,
                  slopes, stats);
    }
    if (options.use_pair) {
      pairs_of_all(d, work->positives, work->negatives, slopes, stats);
    }
    return;
  }
  work->found.clear();
  mine_anchor(mining, options.rule.margin, key, anchor, d, work->positives,
              work->negatives, &work->found);
  for (size_t t = 0; t < work->found.size(); ++t) {
    const Triplet& rows = work->found[t];
    add_triplet(options.rule, d, swap, rows.positive, rows.negative, slopes,
                stats);
    if (options.use_pair) {
      slopes[rows.positive] += 1;
      stats->loss += d[rows.positive];
    }
  }
}

// What the second top of a mined batch is a fraction of: the pairs (a, p), one
// anchor or all triplets, by what can have a triplet with a loss > 0.
inline double mined_candidates(Mining mining, int anchors, double same_pairs,
                               double triplets) {
  if (mining == ALL) {
    return triplets;
  }
  return mining == HARDEST ? anchors : same_pairs;
}

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_TRIPLET_ANCHOR_HPP_
