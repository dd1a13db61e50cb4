#ifndef CAFFE_METRIC_BATCH_CONTRASTIVE_HPP_
#define CAFFE_METRIC_BATCH_CONTRASTIVE_HPP_

#include "caffe_metric/batch_others.hpp"
#include "caffe_metric/batch_rule.hpp"

// BatchContrastiveLoss, Hadsell et al. 2006, over all pairs of a batch: with d
// the L2 distances of rows of unit length,
//
//   loss = 1/2 mean over same pairs of max(0, d - m+)^2
//        + 1/2 mean over the other pairs with d < m- of (m- - d)^2.
//
// An anchor's loss is its part of the two sums.

namespace caffe_metric {

template <typename T>
struct BatchContrastiveRule : BatchRule {
  T positive_margin, negative_margin;
  double half_same, half_close;  // 1/2 over the number of such pairs

  static const Reduction kReduction = AS_IS;
  static const bool kMeetsBatch = true;
  static const bool kAtOnce = true;

  struct State {
    double of_same, of_close;  // sums of squares
    int same, close;           // how many
  };

  CAFFE_METRIC_HD Distance measure() const { return UNIT_L2; }

  CAFFE_METRIC_HD State start() const {
    const State state = {0, 0, 0, 0};
    return state;
  }

  CAFFE_METRIC_HD void fold(State* state, T d, bool same) const {
    if (same) {
      const T over = larger(T(0), d - positive_margin);
      state->of_same += over * over;
      state->same += 1;
    } else if (d < negative_margin) {
      const T under = negative_margin - d;
      state->of_close += under * under;
      state->close += 1;
    }
  }

  void fold_others(State* state, int n, T* d, T*) const {
    state->close += sum_of_close(n, negative_margin, d, &state->of_close);
  }

  void slope_others(const State&, int n, T* d, T*) const {
    slopes_of_close(n, static_cast<T>(-2 * half_close), negative_margin, d, d);
  }

  CAFFE_METRIC_HD void merge(State* state, const State& more) const {
    state->of_same += more.of_same;
    state->of_close += more.of_close;
    state->same += more.same;
    state->close += more.close;
  }

  CAFFE_METRIC_HD void add(BatchTotals* totals, const State& state) const {
    totals->first += state.same;
    totals->second += state.close;
  }

  CAFFE_METRIC_HD void meet(const BatchTotals& totals) {
    half_same = totals.first > 0 ? 0.5 / totals.first : 0;
    half_close = totals.second > 0 ? 0.5 / totals.second : 0;
  }

  CAFFE_METRIC_HD double loss(const State& state) const {
    return half_same * state.of_same + half_close * state.of_close;
  }

  CAFFE_METRIC_HD T slope(const State&, T d, bool same) const {
    if (same) {
      return static_cast<T>(2 * half_same) * larger(T(0), d - positive_margin);
    }
    return static_cast<T>(-2 * half_close) * larger(T(0), negative_margin - d);
  }
};

}  // namespace caffe_metric

#endif  // CAFFE_METRIC_BATCH_CONTRASTIVE_HPP_
